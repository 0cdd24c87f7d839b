"""Cost of an event on the emitting thread, as processor time of that thread.

``python -m benchmarks.events`` writes ``benchmarks/results/events.csv``: the creation of an event, and the encoding of its payload as
JSON, which no code of Nissa takes part in, as baselines of this machine; the emission of a flat payload of eight entries with four backends that do nothing, and of the same as a mapping of a foreign
producer; and a seed's beginning, change of stage and end, with and without files. The queues are emptied every hundred events, so that none is full.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

import nissa
from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval

CREATION, JSON = "creation alone", "JSON of the payload alone"
"""The baselines."""

FIELDS = ("case", "emit_us", "emit_us_low", "emit_us_high", "events", *COLUMNS)
PAYLOAD = {
    "loss": 0.5,
    "accuracy": 0.25,
    "step": 3,
    "phase": "train",
    "layer": "blocks.0.weight",
    "finite": True,
    "learning_rate": 1e-3,
    "note": "fine",
}
BACKENDS = 4
_FLUSH_EVERY = 100


class Ignoring:
    """Backend that does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def emit(self, event: nissa.TelemetryEvent) -> None:
        """Ignore an event."""


def flat(make: Callable[[], object], events: int) -> list[float]:
    """Return the microseconds of each event of a hub with four backends."""
    hub = nissa.NissaHub()
    for number in range(BACKENDS):
        hub.add_backend(Ignoring(f"ignoring{number}"))
    made = (make() for _ in range(events))
    found = [_timed(partial(hub.emit, event), hub, number) for number, event in enumerate(made)]
    hub.close()
    return found


def alone(call: Callable[[], object], events: int) -> list[float]:
    """Return the microseconds of each call of a function that emits nothing."""
    hub = nissa.NissaHub()
    found = [_timed(call, hub, number) for number in range(events)]
    hub.close()
    return found


def _flat_event() -> nissa.TelemetryEvent:
    return nissa.TelemetryEvent("OWN", data=dict(PAYLOAD))


def lives(events: int, *, files: bool) -> dict[str, list[float]]:
    """Return the microseconds of each beginning, change of stage and end of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"files": {"directory": folder}, "console": {"enabled": False}}
        backends = [nissa.FileBackend(Path(folder) / "events.jsonl")] if files else []
        with nissa.start("minimal", backends=backends, **settings) as run:
            found: dict[str, list[float]] = {"germination": [], "change of stage": [], "cull": []}
            for number in range(events):
                seeds: list[nissa.Seed] = []
                name = f"s{number}"
                begin = partial(run.germinate, name, blueprint="conv", slot="r0c0", parameters=48)
                found["germination"].append(_timed(lambda: seeds.append(begin()), run.hub, number))  # noqa: B023 - called now
                (seed,) = seeds
                found["change of stage"].append(_timed(partial(seed.advance, "training"), run.hub, 1))
                found["cull"].append(_timed(partial(seed.cull, reason="late"), run.hub, 1))
    return {f"{name}, event file" if files else name: micros for name, micros in found.items()}


def _timed(call: Callable[[], object], hub: nissa.NissaHub, number: int) -> float:
    if number % _FLUSH_EVERY == 0:
        hub.flush()
    began = thread_time_ns()
    call()
    return (thread_time_ns() - began) / 1000


def measure(events: int) -> dict[str, list[float]]:
    """Return the microseconds of each event of each case."""
    return {
        CREATION: alone(_flat_event, events),
        JSON: alone(partial(json.dumps, PAYLOAD), events),
        "flat event": flat(_flat_event, events),
        "flat mapping": flat(lambda: {"event_type": "OWN", "data": PAYLOAD}, events),
        **lives(events // 4, files=False),
        **lives(events // 4, files=True),
    }


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    logging.getLogger("nissa").setLevel(logging.ERROR)
    machine_facts = facts(1)
    rows = []
    for name, found in measure(arguments.events).items():
        estimate = interval("emit_us", median(found), ".2f")
        rows.append({"case": name, **estimate, "events": len(found), **machine_facts})
        print(f"{name:<30} {estimate['emit_us']} µs")
    write(arguments.into / "events.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
