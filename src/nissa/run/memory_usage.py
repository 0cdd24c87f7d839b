"""Memory of the process and of its CUDA devices, read without waiting for a device."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

_STATM: Final = Path("/proc/self/statm")
"""Memory of the process in pages; the second number is its resident set. Linux only."""


@dataclass(slots=True)
class DeviceMemory:
    """Memory of one device, in bytes.

    Args:
        device: Device as torch names it, such as ``cuda:0``.
        name: Model of the device.
        allocated: Memory of living tensors.
        peak: Most memory of living tensors since the start of the process, or since ``reset_peak_memory_stats``.
        reserved: Memory that torch's allocator holds, which tools such as ``nvidia-smi`` show.
        total: Memory of the device.
    """

    device: str
    name: str
    allocated: int
    peak: int
    reserved: int
    total: int


def resident_memory() -> int | None:
    """Return the resident set size of this process in bytes; None where the system has no ``/proc``."""
    try:
        pages = int(_STATM.read_bytes().split()[1])  # without a codec, whose first use would be an import
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_memory() -> Iterator[DeviceMemory]:
    """Yield the memory of each CUDA device that this process has allocated memory on.

    The numbers are torch's own books. CUDA is neither initialised nor called: a call may wait for a device, and is not
    allowed while a graph is captured.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return
    for index in range(torch.cuda.device_count()):
        stats = torch.cuda.memory_stats(index)
        reserved = int(stats.get("reserved_bytes.all.peak", 0))
        if reserved:
            properties = torch.cuda.get_device_properties(index)
            yield DeviceMemory(
                device=f"cuda:{index}",
                name=str(properties.name),
                allocated=int(stats["allocated_bytes.all.current"]),
                peak=int(stats["allocated_bytes.all.peak"]),
                reserved=int(stats["reserved_bytes.all.current"]),
                total=int(properties.total_memory),
            )
