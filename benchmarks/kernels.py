"""Time of the statistics relative to ``dst.copy_(src)`` of the same gradients, on the CPU and, if available, on CUDA.

``python -m benchmarks.kernels`` writes ``benchmarks/results/kernels.csv``; rows of a device that is not measured are kept.
Each round copies and measures one after the other, and a ratio is the median over rounds with the bootstrap's interval,
so that a machine that is busy for a while disturbs both. On the CPU both may use so many threads of PyTorch: one, and then
as many as it takes by itself. On CUDA a round is timed by the device's own events, and launches are what its profiler saw.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.facts import commit, processor
from benchmarks.medians import median
from nissa.kernels import Kernel, kernel_for
from nissa.kernels.moments import Layout, Thresholds
from nissa.kernels.reference import measure as reference

RESULTS = Path(__file__).parent / "results" / "kernels.csv"
LAYOUTS = {"buckets": Layout(), "moments": Layout(None)}
WARM = 2


@dataclass(frozen=True, slots=True)
class Case:
    """Number of tensors, and elements per tensor."""

    tensors: int
    elements: int
    dtype: torch.dtype

    def make(self, device: str) -> list[Tensor]:
        """Return gradients of a realistic magnitude."""
        generator = torch.Generator(device).manual_seed(0)
        return [
            (torch.randn(self.elements, generator=generator, device=device) * 1e-3).to(self.dtype)
            for _ in range(self.tensors)
        ]


CPU = (
    Case(1, 2**24, torch.float32),
    Case(60, 5000, torch.float32),
    Case(1, 2**23, torch.float64),
    Case(1, 2**24, torch.float16),
    Case(1, 2**24, torch.bfloat16),
)
CUDA = (
    *(Case(1, 2**28, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    Case(1, 2**27, torch.float64),
    Case(400, 2**20, torch.float32),
    Case(60, 5000, torch.float32),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Line of the results; the ratio is the time divided by that of the copy, with its 95 % interval.

    The share is of bandwidth: what is read per second over what the copy reads and writes per second. Threads are
    how many both may use on the CPU; launches are of CUDA alone.
    """

    device: str
    kernel: str
    statistics: str
    dtype: str
    tensors: int
    elements: int
    threads: str
    milliseconds: str
    copy_milliseconds: str
    ratio: str
    ratio_low: str
    ratio_high: str
    share_of_bandwidth: str
    launches: str
    rounds: int
    machine: str
    torch: str
    commit: str


def on_host(act: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    before = perf_counter()
    act()
    return perf_counter() - before


def on_device(act: Callable[[], object]) -> float:
    """Return the seconds that the device needs for the work launched by a call."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    act()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def launched(act: Callable[[], object]) -> int:
    """Return the number of kernels, copies and memory resets that a call launches."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        act()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in seen.events() or ())


def compare(device: str, name: str, kernel: Kernel, case: Case, layout: str, rounds: int) -> Row:
    """Return the row of a kernel and a case."""
    tensors = case.make(device)
    copies = [torch.empty_like(tensor) for tensor in tensors]

    def measure() -> object:
        return kernel(tensors, LAYOUTS[layout], Thresholds())

    def copy() -> None:
        for to, of in zip(copies, tensors, strict=True):
            to.copy_(of)

    seconds = on_host if device == "cpu" else on_device
    pairs = [(seconds(copy), seconds(measure)) for _ in range(rounds + WARM)][WARM:]
    ratio = median([measured / copied for copied, measured in pairs])
    return Row(
        device=device,
        kernel=name,
        statistics=layout,
        dtype=str(case.dtype).removeprefix("torch."),
        tensors=case.tensors,
        elements=case.elements,
        threads=str(torch.get_num_threads()) if device == "cpu" else "",
        milliseconds=f"{1e3 * median([measured for _, measured in pairs]).value:.3f}",
        copy_milliseconds=f"{1e3 * median([copied for copied, _ in pairs]).value:.3f}",
        ratio=f"{ratio.value:.2f}",
        ratio_low=f"{ratio.low:.2f}",
        ratio_high=f"{ratio.high:.2f}",
        share_of_bandwidth=f"{0.5 / ratio.value:.2f}",
        launches="" if device == "cpu" else str(launched(measure)),
        rounds=rounds,
        **where(device),
    )


def where(device: str) -> dict[str, str]:
    """Return the facts about the device."""
    return {
        "machine": processor() if device == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def on_cpu() -> Iterator[Row]:
    """Measure with the current number of threads."""
    for layout in LAYOUTS:
        for case in CPU:
            yield compare("cpu", "compiled", kernel_for("cpu"), case, layout, 40)
        for case in CPU[:2]:
            yield compare("cpu", "reference", reference, case, layout, 12)


def on_cuda() -> Iterator[Row]:
    """Measure on a GPU."""
    for layout in LAYOUTS:
        for case in CUDA:
            yield compare("cuda", "compiled", kernel_for("cuda"), case, layout, 100)
        for case in CUDA[-2:]:
            yield compare("cuda", "reference", reference, case, layout, 20)


def rows(devices: Sequence[str]) -> Iterator[Row]:
    """Measure on devices."""
    if "cpu" in devices:
        for threads in sorted({1, torch.get_num_threads()}):
            torch.set_num_threads(threads)
            yield from on_cpu()
    if "cuda" in devices:
        yield from on_cuda()


def main() -> None:
    """Write the results; keep those of devices that are not measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), action="append", help="those that are there, if not given")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(arguments.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]):
        print(*asdict(row).values(), sep="  ", flush=True)
        found.append(asdict(row))
    devices = {row["device"] for row in found}
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8", newline="") as file:
            found += [row for row in csv.DictReader(file) if row["device"] not in devices]
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
