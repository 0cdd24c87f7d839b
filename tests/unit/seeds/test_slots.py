"""What is remembered of seeds is bounded; the living are never forgotten."""

import gc
import weakref

import torch

from nissa import EventType, Stage, TelemetryEvent
from nissa.seeds.lifecycle import SeedTable


def test_the_first_decided_are_forgotten_first_and_the_living_never() -> None:
    table = SeedTable(most_seeds=3)
    for number in range(6):
        table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id=f"s{number}"))
        if number not in {0, 3}:
            table.apply(TelemetryEvent(EventType.SEED_CULLED, seed_id=f"s{number}"))
    kept = {record.seed_id: record.stage for record in table.slots}
    assert kept == {"s0": Stage.GERMINATED, "s3": Stage.GERMINATED, "s5": Stage.CULLED}


def test_only_living_seeds_may_go_beyond_the_bound() -> None:
    table = SeedTable(most_seeds=2)
    for number in range(4):
        table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id=f"s{number}"))
    assert len(list(table.slots)) == 4


def test_seeds_that_lived_beyond_the_bound_are_forgotten_once_they_have_ended() -> None:
    table = SeedTable(most_seeds=2)
    for number in range(5):
        table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id=f"s{number}"))
    for number in range(5):
        table.apply(TelemetryEvent(EventType.SEED_CULLED, seed_id=f"s{number}"))
    table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id="s5"))
    assert [record.seed_id for record in table.slots] == ["s4", "s5"]


def test_the_end_of_a_seed_that_was_forgotten_is_not_reported_again() -> None:
    table = SeedTable(most_seeds=1)
    for name in ("a", "b"):
        table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id=name))
        table.apply(TelemetryEvent(EventType.SEED_CULLED, seed_id=name))
    change = TelemetryEvent(EventType.SEED_STAGE_CHANGED, seed_id="a", data={"from": "training", "to": "culled"})
    (again,) = table.apply(TelemetryEvent(EventType.SEED_CULLED, seed_id="a"))
    assert again.refused == "the end of seed 'a' was reported already."
    assert not table.apply(change)


def test_the_module_of_a_growing_seed_is_known_and_not_kept_alive() -> None:
    table, module = SeedTable(), torch.nn.Linear(2, 2)
    for name, env in (("a", None), ("b", None), ("c", "1")):
        table.apply(TelemetryEvent(EventType.SEED_GERMINATED, seed_id=name, slot_id=name, env_id=env))
        record = table.slots.get((env, name))
        assert record is not None
        record.module = weakref.ref(module)
    table.apply(TelemetryEvent(EventType.SEED_CULLED, seed_id="b"))
    assert table.slots.growing(None) == [("a", frozenset(map(id, module.parameters())))]
    del module
    gc.collect()
    assert table.slots.growing(None) == []
