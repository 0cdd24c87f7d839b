"""Reference page of kernels: time relative to a copy of the same gradients, from the benchmark results."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

_HEAD = (
    "statistics",
    "gradients",
    "kernel",
    "threads",
    "time / copy",
    "95 %",
    "ms",
    "copy, ms",
    "bandwidth / copy",
    "launches",
)
_STATISTICS = {"buckets": "all, with buckets", "moments": "all but buckets"}
_DEVICES = {"cpu": "CPU", "cuda": "CUDA"}


def kernels(table: Table, results: Path) -> str:
    """Return the page."""
    with results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    page = (
        "# Kernels\n\n"
        "Time of the statistics relative to `dst.copy_(src)` of the same gradients: the median over rounds of one copy and one "
        "measurement each, with the bootstrap's interval. A copy reads and writes, so a kernel that only reads and takes the "
        "same time has half the bandwidth. On the CPU, both may use the number of threads in column *threads*. The data are "
        "`benchmarks/results/kernels.csv`, written by `python -m benchmarks.kernels`. [The explanation]"
        "(../explanation/kernels.md) describes the kernels.\n"
    )
    for device, called in _DEVICES.items():
        found = [row for row in rows if row["device"] == device]
        page += f"\n## {called}\n\n" + (_device(table, found) if found else "Not measured yet.\n")
    return page


def _device(table: Table, rows: Sequence[dict[str, str]]) -> str:
    where = sorted({f"{row['machine']}; torch {row['torch']}; commit {row['commit']}" for row in rows})
    return f"{'; '.join(where)}.\n\n{table(_HEAD, [_cells(row) for row in rows])}"


def _cells(row: dict[str, str]) -> list[str]:
    return [
        _STATISTICS[row["statistics"]],
        f"{row['tensors']} of {int(row['elements']):,} {row['dtype']}",
        row["kernel"],
        row["threads"] or "-",
        row["ratio"],
        f"{row['ratio_low']}-{row['ratio_high']}",
        row["milliseconds"],
        row["copy_milliseconds"],
        row["share_of_bandwidth"],
        row["launches"] or "-",
    ]
