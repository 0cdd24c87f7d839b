import json
import math
import time
from collections import OrderedDict
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import EventType, GateResult, Severity, Stage, TelemetryEvent, UnknownNameError
from nissa.events import SpanIds, as_mapping, json_number, nanoseconds
from nissa.seeds.slots import SeedRecord


def test_stages_have_the_original_s_numbers() -> None:
    assert {stage.name: int(stage) for stage in Stage} == {
        "UNKNOWN": 0,
        "DORMANT": 1,
        "GERMINATED": 2,
        "TRAINING": 3,
        "BLENDING": 4,
        "SHADOWING": 5,
        "PROBATIONARY": 6,
        "FOSSILIZED": 7,
        "CULLED": 8,
        "EMBARGOED": 9,
        "RESETTING": 10,
    }


def test_later_names_are_aliases() -> None:
    assert Stage["HOLDING"] is Stage.PROBATIONARY
    assert Stage["PRUNED"] is Stage.CULLED
    assert Stage["HOLDING"].label == "probationary"


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.name)
def test_a_stage_is_parsed_from_name_label_number_and_itself(stage: Stage) -> None:
    for form in (stage, stage.name, stage.label, stage.name.title(), int(stage), np.int32(stage)):
        assert Stage.parse(form) is stage


def test_a_stage_is_parsed_from_another_package_s_enumeration_by_name() -> None:
    class Theirs(Enum):
        HOLDING = "x"

    assert Stage.parse(Theirs.HOLDING) is Stage.PROBATIONARY


@pytest.mark.parametrize("nonsense", ["", "nowhere", "3", -1, 11, True, False, None, 3.0, [3], "trainign"], ids=repr)
def test_what_is_no_stage_is_an_unknown_name(nonsense: object) -> None:
    with pytest.raises(UnknownNameError, match="Unknown stage"):
        Stage.parse(nonsense)


def test_an_event_knows_when_it_was_made_and_has_an_identity() -> None:
    first, second = TelemetryEvent("X"), TelemetryEvent("X")

    assert first.event_id != second.event_id
    assert first.time_unix_nano <= second.time_unix_nano
    assert abs((datetime.now(tz=UTC) - first.timestamp).total_seconds()) < 60
    assert first.data is not second.data


def test_an_event_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TelemetryEvent("X").epoch = 3  # type: ignore[misc]


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001 - as hypothesis wants
def test_microseconds_survive_the_way_through_nanoseconds(moment: datetime) -> None:
    event = TelemetryEvent("X", time_unix_nano=nanoseconds(moment))

    assert event.time_unix_nano % 1000 == 0
    assert event.timestamp == moment.replace(tzinfo=UTC)


def test_numbers_that_json_excludes_become_text() -> None:
    given = [0.5, -0.0, math.nan, math.inf, -math.inf, np.float64("-inf")]
    assert [json_number(value) for value in given] == [0.5, -0.0, "NaN", "Infinity", "-Infinity", "-Infinity"]


def test_nanoseconds_are_exact_and_know_zones() -> None:
    moment = datetime(2025, 12, 2, 12, 0, 0, 1, tzinfo=UTC)

    assert nanoseconds(moment) == 1_764_676_800_000_001_000
    assert nanoseconds(moment.astimezone(timezone(timedelta(hours=-5)))) == nanoseconds(moment)
    assert nanoseconds(moment.replace(tzinfo=None)) == nanoseconds(moment)
    assert nanoseconds(datetime(1970, 1, 1, tzinfo=UTC)) == 0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs a zone to set")
def test_a_time_without_a_zone_is_utc_wherever_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as there:
            there.setenv("TZ", "Australia/Sydney")
            time.tzset()
            assert nanoseconds(datetime(1970, 1, 2)) == 86_400_000_000_000  # noqa: DTZ001 - that is the point
            assert TelemetryEvent("X", time_unix_nano=0).timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    finally:
        time.tzset()


def test_only_anomalies_log_records_and_warnings_may_be_lost() -> None:
    kept = {kind for kind in EventType if TelemetryEvent(kind).is_lifecycle}

    assert set(EventType) - kept == {EventType.GRADIENT_ANOMALY, EventType.LOG_RECORDED, EventType.TORCH_WARNING}
    assert TelemetryEvent("SEED_CULLED").is_lifecycle
    assert not TelemetryEvent("MY_EVENT").is_lifecycle


def test_an_event_as_plain_data_leaves_out_what_is_absent_and_keeps_zero() -> None:
    event = TelemetryEvent(EventType.EPOCH_COMPLETED, epoch=0, env_id="0", time_unix_nano=0, event_id="e")

    assert event.to_dict() == {
        "event_id": "e",
        "event_type": "EPOCH_COMPLETED",
        "time_unix_nano": 0,
        "severity": "info",
        "env_id": "0",
        "epoch": 0,
    }


def test_an_event_as_plain_data_says_where_the_seed_is() -> None:
    record = SeedRecord(
        seed_id="s",
        env_id=None,
        slot_id="r0c0",
        blueprint_id="conv",
        parameters=1,
        germinated_at=1,
        stage_since=1,
        ids=SpanIds(10, 11),
    )
    event = TelemetryEvent(
        "SEED_CULLED",
        seed_id="s",
        data={"a": 1},
        message="m",
        severity=Severity.ERROR,
        refused="no",
        seed=record.snapshot(),
    )
    found = json.loads(json.dumps(event.to_dict()))

    assert (found["stage"], found["blueprint_id"], found["trace_id"]) == ("germinated", "conv", "0" * 31 + "a")
    assert (found["data"], found["message"], found["severity"], found["refused"]) == ({"a": 1}, "m", "error", "no")


def test_a_gate_result_freezes_its_checks() -> None:
    checks = ["a"]
    result = GateResult("G1", passed=True, checks_passed=checks, checks_failed=[])  # type: ignore[arg-type]  # as callers do
    checks.append("b")

    assert (result.checks_passed, result.checks_failed) == (("a",), ())
    assert hash(result)


@dataclass(frozen=True, slots=True)
class Slotted:
    a: int = 1


def test_a_payload_s_attributes_are_a_mapping() -> None:
    ordered = OrderedDict(a=1)

    assert as_mapping(ordered) is ordered
    assert as_mapping(Slotted()) == {"a": 1}
    assert as_mapping(SimpleNamespace(a=1)) == {"a": 1}
    assert as_mapping(5) is None
    assert as_mapping("text") is None
