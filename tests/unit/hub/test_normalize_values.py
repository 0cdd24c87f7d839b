"""Stages, fractions, times and severities in the many forms in which producers have them."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import pytest

from nissa import Severity, Stage
from nissa.hub.normalize import normalize

NOON = datetime(2025, 12, 2, 12, 0, 0, 123_456, tzinfo=UTC)
NOON_NANO = 1_764_676_800_123_456_000


class Pruned(IntEnum):
    """As the original's later versions have it."""

    PRUNED = 8


class Level(Enum):
    """Severities with values of their own."""

    CRITICAL = 50


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("HOLDING", "probationary"),
        ("Pruned", "culled"),
        (6, "probationary"),
        (np.int64(8), "culled"),
        (Pruned.PRUNED, "culled"),
        (Stage.FOSSILIZED, "fossilized"),
        ("shadowing", "shadowing"),
        (5, "shadowing"),
    ],
)
@pytest.mark.parametrize("key", ["to", "to_stage"])
def test_a_stage_has_many_names_and_one_label(given: object, label: str, key: str) -> None:
    assert normalize({"event_type": "SEED_STAGE_CHANGED", "seed_id": "s", "data": {key: given}}).data["to"] == label


def test_a_key_s_own_name_is_stronger_than_its_alias_and_anything_is_stronger_than_nothing() -> None:
    def to(data: dict[str, Any]) -> Any:
        return normalize({"event_type": "SEED_STAGE_CHANGED", "seed_id": "s", "data": data}).data["to"]

    assert to({"to": "training", "to_stage": None}) == "training"
    assert to({"to": None, "to_stage": 3}) == "training"
    assert to({"to_stage": 4, "to": "training"}) == "training"
    assert to({"to": "training", "to_stage": 4}) == "training"


@pytest.mark.parametrize(
    ("given", "expected"),
    [(2.5, 0.025), (-3, -0.03), (0, 0.0), (True, True), ("2.5", "2.5"), (None, None), (np.float32(50), 0.5)],
)
def test_percent_becomes_a_fraction_where_there_is_a_number(given: object, expected: object) -> None:
    item = {"event_type": "SEED_FOSSILIZED", "seed_id": "s", "data": {"improvement": given, "alpha": 1.0}}

    assert normalize(item, percent=True).data["improvement"] == expected
    assert normalize(item, percent=True).data["alpha"] == 1.0
    assert normalize(item).data["improvement"] == given


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (NOON, NOON_NANO),
        (NOON.replace(tzinfo=None), NOON_NANO),
        (NOON.astimezone(timezone(timedelta(hours=11))), NOON_NANO),
        ("2025-12-02T12:00:00.123456+00:00", NOON_NANO),
        ("2025-12-02T12:00:00.123456Z", NOON_NANO),
        ("2025-12-02T23:00:00.123456+11:00", NOON_NANO),
        ("2025-12-02T12:00:00.123456", NOON_NANO),
        (1_764_676_801, 1_764_676_801_000_000_000),
        (np.int64(1_764_676_801), 1_764_676_801_000_000_000),
        (1_764_676_800.5, 1_764_676_800_500_000_000),
        (0, 0),
    ],
)
def test_a_time_is_taken_exactly_and_as_utc_where_it_has_no_zone(moment: object, expected: int) -> None:
    assert normalize({"event_type": "EPOCH_COMPLETED", "timestamp": moment}).time_unix_nano == expected


def test_nanoseconds_are_kept_and_stronger_than_a_timestamp() -> None:
    item = {"event_type": "EPOCH_COMPLETED", "time_unix_nano": np.int64(NOON_NANO + 789), "timestamp": "not a time"}

    assert normalize(item).time_unix_nano == NOON_NANO + 789


@pytest.mark.parametrize("given", ["Critical", Severity.CRITICAL, Level.CRITICAL])
def test_a_severity_has_any_case_and_form(given: object) -> None:
    assert normalize({"event_type": "X", "severity": given}).severity is Severity.CRITICAL


@pytest.mark.parametrize("given", [None, "loud", 30, np.zeros(3)])
def test_a_severity_that_we_do_not_know_is_information(given: object) -> None:
    assert normalize({"event_type": "X", "severity": given}).severity is Severity.INFO
