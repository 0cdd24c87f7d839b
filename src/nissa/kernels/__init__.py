"""Gradient statistics on the device: one packed row per parameter.

A kernel reads tensors and fills the columns that :mod:`nissa.kernels.moments` lays out;
:mod:`nissa.kernels.reference` is the specification that every kernel agrees with.
"""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

__all__ = ["Kernel", "kernel_for"]

Kernel: TypeAlias = "Callable[[Sequence[Tensor], Layout, Thresholds], Tensor]"

# Device type -> the kernel chosen for it. A test forces a kernel by setting an entry.
_CHOSEN: dict[str, Kernel] = {}


def kernel_for(device_type: str) -> Kernel:
    """Return the kernel for a device type, such as ``"cpu"`` or ``"cuda"``; it is chosen once per process."""
    if device_type not in _CHOSEN:
        _CHOSEN[device_type] = _choose()
    return _CHOSEN[device_type]


def _choose() -> Kernel:
    from nissa.kernels.reference import measure  # noqa: PLC0415 - importing this package must not import torch

    return measure
