"""What is remembered of seeds is bounded; the living are never forgotten."""

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
