"""Rate of events through a hub with a memory and a file backend, until the last event is in the file.

``python -m benchmarks.event_rate`` writes ``benchmarks/results/event_rate.csv``. The baseline is what the same machine takes, without
a hub and without threads, to create each event and to encode it as JSON. Baseline and cases alternate, so that a machine that becomes
slower changes both.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import nissa
from benchmarks.events import PAYLOAD
from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval

FIELDS = (
    "case",
    "events_per_second",
    "events_per_second_low",
    "events_per_second_high",
    "of_baseline",
    "lost",
    *COLUMNS,
)
BASELINE = "creation and JSON alone"
THREADS = (1, 2, 4)
_FLUSH_SECONDS = 300


def _event(number: int) -> nissa.TelemetryEvent:
    return nissa.TelemetryEvent(nissa.EventType.EPOCH_COMPLETED, epoch=number, data=dict(PAYLOAD))


def baseline(events: int) -> tuple[float, int]:
    """Return the events per second of a loop that creates and encodes events; it loses none."""
    began = perf_counter()
    for number in range(events):
        json.dumps(_event(number).to_dict())
    return events / (perf_counter() - began), 0


def sustained(events: int, threads: int) -> tuple[float, int]:
    """Return the events per second from the first call of `emit` to the last line of the file, and the number of lost events."""
    each = events // threads
    with tempfile.TemporaryDirectory() as folder:
        hub, memory, path = nissa.NissaHub(), nissa.MemoryBackend(), Path(folder) / "events.jsonl"
        hub.add_backend(memory)
        hub.add_backend(nissa.FileBackend(path))
        workers = [threading.Thread(target=_emit, args=(hub, each)) for _ in range(threads)]
        began = perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        done = hub.flush(_FLUSH_SECONDS)
        rate = each * threads / (perf_counter() - began)
        hub.close()
        kept = min(len(memory.events), path.read_bytes().count(b"\n"))
    return rate, each * threads - kept if done else each * threads


def _emit(hub: nissa.NissaHub, events: int) -> None:
    for number in range(events):
        hub.emit(_event(number))


def cases(events: int) -> dict[str, Callable[[], tuple[float, int]]]:
    """Return the measurement of each case, the baseline first."""
    named = {f"{threads} thread{'s' if threads > 1 else ''}": threads for threads in THREADS}
    return {
        BASELINE: partial(baseline, events),
        **{name: partial(sustained, events, threads) for name, threads in named.items()},
    }


def measure(events: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row per case."""
    rates: dict[str, list[float]] = {}
    lost: dict[str, int] = {}
    for _ in range(rounds):
        for name, case in cases(events).items():
            rate, missing = case()
            rates.setdefault(name, []).append(rate)
            lost[name] = lost.get(name, 0) + missing
    alone = rates[BASELINE]
    return [
        {
            "case": name,
            **interval("events_per_second", median(found), ".0f"),
            "of_baseline": f"{median([rate / base for rate, base in zip(found, alone, strict=True)]).value:.2f}",
            "lost": lost[name],
        }
        for name, found in rates.items()
    ]


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine_facts = facts(1)
    rows = measure(arguments.events, arguments.rounds)
    for row in rows:
        print(
            f"{row['case']:<30} {row['events_per_second']} per second, {row['of_baseline']} of the baseline, {row['lost']} lost"
        )
    write(arguments.into / "event_rate.csv", FIELDS, [row | machine_facts for row in rows])


if __name__ == "__main__":
    main()
