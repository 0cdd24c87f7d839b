"""What is kept of seeds that have ended is bounded, in every part of a run."""

import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import nissa
from nissa import TelemetryEvent
from nissa.otel.metrics.gauges import GaugeLog

pytestmark = pytest.mark.usefixtures("patient")

SEEDS, MOST = 3_000, 100
_PLAIN = (str, bytes, int, float, type(None), type, types.FunctionType, types.ModuleType)


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from vars(value).items() if hasattr(value, "__dict__") else ()
    for kind in type(value).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(value, name):
                yield name, getattr(value, name)


def containers(root: object) -> dict[str, int]:
    """Return the size of each container that is reachable through objects of ours, by its path."""
    found: dict[str, int] = {}
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    known: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in known or isinstance(value, _PLAIN):
            continue
        known.add(id(value))
        if isinstance(value, Mapping | list | set | tuple | deque):
            found[path] = len(value)
            entries: Any = value.values() if isinstance(value, Mapping) else value
            waiting += [(f"{path}[]", each) for each in entries]
        elif type(value).__module__.startswith("nissa") and not isinstance(value, GaugeLog):
            waiting += [(f"{path}.{name}", each) for name, each in _attributes(value)]
    return found


def test_three_thousand_seeds_leave_no_more_than_the_bound_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")  # what is kept does not depend on what is exported
    limits = {"max_seeds": MOST, "max_slots": 50}
    with nissa.start("minimal", limits=limits, console={"enabled": False}, strict=False) as run:
        for number in range(SEEDS):
            seed_id, slot = f"s{number}", f"slot{number}"
            seed = run.germinate(seed_id, blueprint=f"b{number % 7}", slot=slot)
            seed.advance("training")
            if number % 3 == 0:
                seed.cull(reason="slow")
            elif number % 3 == 1:
                change = {"from": "training", "to": "culled"}
                run.hub.emit(TelemetryEvent("SEED_STAGE_CHANGED", seed_id=seed_id, slot_id=slot, data=change))
            else:
                seed.advance("blending")
                seed.fossilize()
            if number % 500 == 0:
                run.validate(accuracy=0.5)
        run.validate(accuracy=0.5)
        assert run.flush(60)
        runtime, otel = run._runtime, run._backends.otel
        roots = (runtime.table, runtime.tracker(None), otel._seeds, otel._recorder, otel._epochs)
        sizes = {path: size for root in roots for path, size in containers(root).items()}
        assert {path: size for path, size in sizes.items() if size > MOST} == {}
        assert sizes["SeedTable.slots._records"] == MOST
    counted = run.analytics.snapshot()["environments"]["run"]
    assert (counted["fossilized"], counted["culled"]) == (SEEDS // 3, SEEDS // 3 * 2)
