"""Size of the telemetry of a real run on disk: in the spool, in files that are written to, and in closed ones.

``python -m benchmarks.journal`` trains a network of 149 tensors with each profile, and writes
``benchmarks/results/journal.csv``. Sizes do not depend on the machine. The size of a million steps is extrapolated.
"""

import argparse
import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy

import nissa
from benchmarks.facts import RESULTS, facts, write
from benchmarks.steps.models import Gpt
from nissa.journal import FileJournal, Spool, line_files
from nissa.otel.replay.requests import count, joined, message
from nissa.recordings.jsonl_reader import JsonLine, json_lines

PROFILES: Final = ("minimal", "standard", "diagnostic")
STEPS: Final = 600
EXPORT_MILLISECONDS: Final = 5_000
CLOSED_BYTES: Final = 4 << 20
"""Size at which files are closed, so that a short run has closed ones."""

FIELDS: Final = (
    "profile",
    "tensors",
    "steps",
    "points",
    "open_bytes_per_point",
    "closed_bytes_per_point",
    "spool_bytes_per_point",
    "closed_bytes_per_step",
    "spool_bytes_per_step",
    "closed_gib_per_million_steps",
    "spool_gib_per_million_steps",
    "machine",
    "torch",
    "commit",
    "date",
    "load",
)


def main() -> None:
    """Measure, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=STEPS)
    steps = arguments.parse_args().steps
    os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = str(EXPORT_MILLISECONDS)
    torch.set_num_threads(1)
    about = facts(1)
    rows = [{**measured(profile, steps), **about} for profile in PROFILES]
    write(RESULTS / "journal.csv", FIELDS, rows)
    for row in rows:
        for name in FIELDS:
            print(f"{name:>30}  {row[name]}")


def measured(profile: str, steps: int) -> dict[str, Any]:
    """Return the sizes of the metrics of a run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tensors = train(profile, steps, folder / "runs")
        lines = [*recorded(folder / "runs" / "run")]
        points = sum(count("metrics", line.value) for line in lines)
        closed, spool = closed_bytes(lines, folder / "files"), spool_bytes(lines, folder / "spool")
    return {
        "profile": profile,
        "tensors": tensors,
        "steps": steps,
        "points": points,
        "open_bytes_per_point": f"{sum(len(line.raw) + 1 for line in lines) / points:.1f}",
        "closed_bytes_per_point": f"{closed / points:.1f}",
        "spool_bytes_per_point": f"{spool / points:.1f}",
        "closed_bytes_per_step": f"{closed / steps:.0f}",
        "spool_bytes_per_step": f"{spool / steps:.0f}",
        "closed_gib_per_million_steps": f"{closed / steps * 1e6 / 2**30:.2f}",
        "spool_gib_per_million_steps": f"{spool / steps * 1e6 / 2**30:.2f}",
    }


def train(profile: str, steps: int, folder: Path) -> int:
    """Train a small transformer, and return the number of its tensors."""
    torch.manual_seed(0)
    model = Gpt(width=32, tokens=200, time=32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with nissa.start(profile, run_id="run", files__directory=str(folder), console__enabled=False) as run:
        run.watch(model, optimizer)
        for _ in range(steps):
            tokens = torch.randint(0, 200, (4, 33))
            loss = cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            run.log_loss(loss)
            optimizer.step()
    return len([*model.parameters()])


def recorded(folder: Path) -> Iterator[JsonLine]:
    """Yield the lines of a run's metrics."""
    for path in line_files(folder, "metrics"):
        yield from json_lines(path, [])


def closed_bytes(lines: list[JsonLine], folder: Path) -> float:
    """Return the bytes of the lines in closed files, from the ratio of those that are closed."""
    journal = FileJournal.create(folder, segment_bytes=CLOSED_BYTES)
    for line in lines:
        journal.append("metrics", line.raw, 1)
    journal.append("metrics", b" " * CLOSED_BYTES, 0)  # closes the last file of telemetry
    journal.append("metrics", b"{}", 0)
    journal.close()
    closed = [path for path in line_files(folder, "metrics") if path.suffix == ".gz"][:-1]
    if sum(len(gzip.decompress(path.read_bytes())) for path in closed) != sum(len(line.raw) + 1 for line in lines):
        raise SystemExit("The closed files do not contain all lines.")
    return sum(path.stat().st_size for path in closed)


def spool_bytes(lines: list[JsonLine], folder: Path) -> int:
    """Return the bytes of the lines in a spool, a frame for each export."""
    spool = Spool.create(folder, {})
    for request in exports(lines):
        payload = gzip.compress(message("metrics", request).SerializeToString(), 6, mtime=0)
        spool.append("metrics", payload, count("metrics", request), time_unix_nano=1)
    size = spool.size_bytes
    spool.close()
    return size


def exports(lines: list[JsonLine]) -> Iterator[dict[str, Any]]:
    """Yield the lines of each export as one request. An export writes the lines of a metric one after the other."""
    held: list[dict[str, Any]] = []
    seen: list[str] = []
    for line in lines:
        names = [each["name"] for each in line.value["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]]
        if seen and names[0] in seen and names[0] != seen[-1]:
            yield joined("metrics", held)
            held, seen = [], []
        held.append(line.value)
        seen += names
    yield joined("metrics", held)


if __name__ == "__main__":
    main()
