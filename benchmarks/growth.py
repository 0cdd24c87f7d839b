"""Cost of a sampled step of the profile ``diagnostic`` by size of the model.

``python -m benchmarks.growth`` writes ``benchmarks/results/growth.csv``: 10 to 1,000 tensors of 10 M elements in all, and 1 M to
200 M elements in 150 tensors. Gradients are random numbers, and what the processor's cache holds is replaced before each
step, as a backward pass does. Time on the training thread is taken between hooks around Nissa's own; that of Nissa's threads
is processor time, the export included.
"""

import argparse
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch
from torch import nn

import nissa
from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.steps.rows import interval
from benchmarks.steps.statistics import mean
from nissa.gradients.overhead import thread_times

TENSORS = (10, 30, 100, 150, 300, 1_000)
ELEMENTS = (1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000, 200_000_000)
CASES = [("tensors", tensors, 10_000_000) for tensors in TENSORS] + [("elements", 150, each) for each in ELEMENTS]
FEWEST, MOST, SECONDS = 6, 20, 6.0
"""Seconds of repetitions."""

_CACHE = 2**25
"""Elements to write to replace the contents of the cache: 128 MiB."""

FIELDS = (
    "sweep",
    "tensors",
    "elements",
    "bytes",
    "thread_ms",
    "thread_ms_low",
    "thread_ms_high",
    "background_ms",
    "repetitions",
    *COLUMNS,
)


class Layers(nn.Module):
    """Model with a number of tensors and a total number of elements, with gradients."""

    def __init__(self, tensors: int, elements: int, device: str) -> None:
        super().__init__()
        self.parts = nn.ParameterList(torch.randn(elements // tensors, device=device) for _ in range(tensors))
        for part in self.parts:
            part.grad = torch.randn_like(part) * 1e-3


class Stopwatch:
    """Measures the time between hooks of an optimizer."""

    def __init__(self, device: str) -> None:
        self.seconds = 0.0
        self._device = device
        self._began = 0.0

    def begin(self, *_: object) -> None:
        """Begin."""
        self._wait()
        self._began = perf_counter()

    def end(self, *_: object) -> None:
        """End; on a device, after its queued work."""
        self._wait()
        self.seconds += perf_counter() - self._began

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


@contextmanager
def _watched(run: Any, model: nn.Module, optimizer: torch.optim.Optimizer, stopwatch: Stopwatch) -> Iterator[None]:
    optimizer.register_step_pre_hook(stopwatch.begin)
    optimizer.register_step_post_hook(stopwatch.begin)
    watch = run.watch(model, optimizer)
    optimizer.register_step_pre_hook(stopwatch.end)
    optimizer.register_step_post_hook(stopwatch.end)
    yield
    watch.close()


def measure(tensors: int, elements: int, device: str) -> dict[str, Any]:
    """Return a line of the results."""
    model, stopwatch = Layers(tensors, elements, device), Stopwatch(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    cache = torch.zeros(_CACHE)
    with tempfile.TemporaryDirectory() as folder:
        files = {"directory": folder, "export_interval_seconds": 3600}
        run = nissa.start("diagnostic", files=files, console={"enabled": False})
        with run, run.epoch(0), _watched(run, model, optimizer, stopwatch):
            found, background = _repeat(run, optimizer, stopwatch, cache)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "bytes": size,
        **interval("thread_ms", mean(found).scaled(1000), ".4f"),
        "background_ms": f"{background / len(found) * 1000:.4f}",
        "repetitions": len(found),
    }


def _repeat(
    run: Any, optimizer: torch.optim.Optimizer, stopwatch: Stopwatch, cache: torch.Tensor
) -> tuple[list[float], float]:
    optimizer.step()  # compiles, or loads what was compiled
    run.flush()
    found: list[float] = []
    before, began = _background(), perf_counter()
    while len(found) < FEWEST or (len(found) < MOST and perf_counter() - began < SECONDS):
        cache.add_(1)
        stopwatch.seconds = 0.0
        optimizer.step()
        found.append(stopwatch.seconds)
        sleep(0.02)  # Nissa's threads end what belongs to this step
    flushing = threading.Thread(target=run.flush, args=(60.0,), name="nissa-bench-export")
    flushing.start()
    flushing.join()
    return found, _background() - before


def _background() -> float:
    return sum(thread_times().values()) / 1e9


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--most", type=int, default=max(ELEMENTS), help="elements; larger cases are left out")
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    logging.getLogger("nissa").setLevel(logging.ERROR)
    machine_facts = facts(arguments.threads, arguments.device)
    rows = []
    for sweep, tensors, elements in CASES:
        if elements <= arguments.most:
            found = measure(tensors, elements, arguments.device)
            rows.append({"sweep": sweep, "tensors": tensors, "elements": elements, **found, **machine_facts})
            write(arguments.into / "growth.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
