"""Rate of events through a hub with a memory and a file backend, until the last event is in the file.

``python -m benchmarks.event_rate`` writes ``benchmarks/results/event_rate.csv``. The threads emit without a pause, so that they emit all
that the interpreter can take, and the backends must keep up. The baseline is what the same machine takes, without a hub and without
threads, to create each event and to encode it as JSON. Baseline and cases alternate, so that a machine that becomes slower changes both.
The second rate is per second of processor time: other programs of the machine change it less.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median as middle
from time import perf_counter, process_time
from typing import Any

import nissa
from benchmarks.events import PAYLOAD
from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval

FIELDS = (
    "case",
    "per_second",
    "per_second_low",
    "per_second_high",
    "per_processor_second",
    "of_baseline",
    "most_queued",
    "emitted",
    "lost",
    *COLUMNS,
)
BASELINE = "creation and JSON alone"
THREADS = (1, 2, 4)
_FLUSH_SECONDS = 300
_LOOK_EVERY = 500


@dataclass(frozen=True, slots=True)
class Found:
    """Figures of a round.

    Args:
        per_second: Events per second.
        per_processor_second: Events per second of processor time, that of all threads together.
        most_queued: Largest queue of a backend that an emitting thread has seen.
        lost: Number of events that did not reach both backends.
    """

    per_second: float
    per_processor_second: float
    most_queued: int = 0
    lost: int = 0


def _event(number: int) -> nissa.TelemetryEvent:
    return nissa.TelemetryEvent(nissa.EventType.EPOCH_COMPLETED, epoch=number, data=dict(PAYLOAD))


def baseline(events: int) -> Found:
    """Measure a loop that creates and encodes events."""
    began, processor = perf_counter(), process_time()
    for number in range(events):
        json.dumps(_event(number).to_dict())
    return Found(events / (perf_counter() - began), events / (process_time() - processor))


def sustained(events: int, threads: int) -> Found:
    """Measure from the first call of `emit` to the last line of the file."""
    emitted, sizes = events // threads * threads, [0]
    with tempfile.TemporaryDirectory() as folder:
        hub, memory, path = nissa.NissaHub(), nissa.MemoryBackend(), Path(folder) / "events.jsonl"
        hub.add_backend(memory)
        hub.add_backend(nissa.FileBackend(path))
        emitting = [threading.Thread(target=_emit, args=(hub, events // threads, sizes)) for _ in range(threads)]
        began, processor = perf_counter(), process_time()
        for thread in emitting:
            thread.start()
        for thread in emitting:
            thread.join()
        hub.flush(_FLUSH_SECONDS)
        rates = emitted / (perf_counter() - began), emitted / (process_time() - processor)
        hub.close()
        kept = min(len(memory.events), path.read_bytes().count(b"\n"))
    return Found(*rates, most_queued=max(sizes), lost=emitted - kept)


def _emit(hub: nissa.NissaHub, events: int, sizes: list[int]) -> None:
    for number in range(events):
        hub.emit(_event(number))
        if number % _LOOK_EVERY == 0:
            sizes.append(max(hub.queue_sizes().values()))


def cases(events: int) -> dict[str, Callable[[], Found]]:
    """Return the measurement of each case, the baseline first."""
    named = {f"{threads} thread{'s' if threads > 1 else ''}": threads for threads in THREADS}
    return {
        BASELINE: partial(baseline, events),
        **{name: partial(sustained, events, threads) for name, threads in named.items()},
    }


def measure(events: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row per case."""
    found: dict[str, list[Found]] = {name: [] for name in cases(events)}
    for _ in range(rounds):
        for name, case in cases(events).items():
            found[name].append(case())
    return [_row(name, each, found[BASELINE]) | {"emitted": events * rounds} for name, each in found.items()]


def _row(name: str, found: list[Found], alone: list[Found]) -> dict[str, Any]:
    ratios = [one.per_second / other.per_second for one, other in zip(found, alone, strict=True)]
    return {
        "case": name,
        **interval("per_second", median([each.per_second for each in found]), ".0f"),
        "per_processor_second": f"{middle(each.per_processor_second for each in found):.0f}",
        "of_baseline": f"{middle(ratios):.2f}",
        "most_queued": max(each.most_queued for each in found),
        "lost": sum(each.lost for each in found),
    }


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine_facts = facts(1)
    rows = measure(arguments.events, arguments.rounds)
    for row in rows:
        print(*(f"{key}={row[key]}" for key in FIELDS if key in row))
    write(arguments.into / "event_rate.csv", FIELDS, [row | machine_facts for row in rows])


if __name__ == "__main__":
    main()
