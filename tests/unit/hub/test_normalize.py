"""What producers of several packages and versions hand over, and the one form that it takes."""

import json
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, IntEnum, auto
from typing import Any

import pytest

from nissa import EventType, Severity, TelemetryEvent
from nissa.hub.normalize import normalize

NOON = datetime(2025, 12, 2, 12, 0, 0, 123_456, tzinfo=UTC)
NOON_NANO = 1_764_676_800_123_456_000


class OldType(Enum):
    """As the original's first version has it."""

    SEED_GERMINATED = auto()
    SEED_STAGE_CHANGED = auto()
    SEED_CULLED = auto()
    COMMAND_ISSUED = auto()


@dataclass
class OldEvent:
    """As the original's first version has it."""

    event_type: OldType
    event_id: str = "0e0e-11"
    timestamp: datetime = NOON
    seed_id: str | None = None
    slot_id: str | None = None
    epoch: int | None = None
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    severity: str = "info"


class NewStage(IntEnum):
    """As the original's later versions have it."""

    TRAINING = 3
    HOLDING = 6
    PRUNED = 8


@dataclass(frozen=True, slots=True)
class StagePayload:
    """As the original's later versions have it."""

    slot_id: str
    env_id: int
    from_stage: int
    to_stage: int
    alpha: float | None = None
    accuracy_delta: float = 0.0


@dataclass(frozen=True, slots=True)
class PrunedPayload:
    """As the original's later versions have it."""

    slot_id: str = "r0c1"
    env_id: int = -1
    reason: str = "no improvement"
    blueprint_id: str | None = None
    improvement: float = -1.5


def test_an_event_of_ours_keeps_everything() -> None:
    event = TelemetryEvent(
        EventType.EPOCH_COMPLETED,
        epoch=3,
        data={"loss": 0.5},
        message="done",
        severity=Severity.WARNING,
        env_id="4",
        slot_id="r0c0",
        time_unix_nano=1_764_676_800_123_456_789,
        event_id="mine",
    )

    assert normalize(event) == event
    assert normalize(event).data is not event.data


def test_an_event_of_the_original_s_first_version_is_understood() -> None:
    event = normalize(
        OldEvent(
            OldType.SEED_STAGE_CHANGED,
            seed_id="env0_seed_1",
            slot_id="mid",
            data={"from": "GERMINATED", "to": "TRAINING"},
        )
    )

    assert event.event_type is EventType.SEED_STAGE_CHANGED
    assert (event.event_id, event.time_unix_nano) == ("0e0e-11", NOON_NANO)
    assert (event.seed_id, event.slot_id, event.epoch, event.env_id) == ("env0_seed_1", "mid", None, None)
    assert event.data == {"from": "germinated", "to": "training"}
    assert event.severity is Severity.INFO


def test_the_parameters_of_a_germination_have_one_name() -> None:
    old = OldEvent(OldType.SEED_GERMINATED, seed_id="a", data={"blueprint_id": "conv", "seed_id": "a", "params": 48})

    assert normalize(old).data == {"blueprint_id": "conv", "seed_id": "a", "parameters": 48}


def test_the_typed_payload_of_later_versions_is_understood() -> None:
    payload = StagePayload("r0c1", 0, from_stage=4, to_stage=NewStage.HOLDING, alpha=0.5, accuracy_delta=2.5)
    event = normalize(
        {"event_type": "SEED_STAGE_CHANGED", "seed_id": "s", "timestamp": NOON, "data": payload}, percent=True
    )

    assert event.data == {
        "slot_id": "r0c1",
        "from": "blending",
        "to": "probationary",
        "alpha": 0.5,
        "accuracy_delta": 0.025,
    }
    assert (event.slot_id, event.env_id) == ("r0c1", "0")


def test_pruning_is_culling_by_another_name() -> None:
    event = normalize({"event_type": "SEED_PRUNED", "seed_id": "s", "data": PrunedPayload()}, percent=True, env_id=2)

    assert event.event_type is EventType.SEED_CULLED
    assert event.data["improvement"] == -0.015
    assert event.data["reason"] == "no improvement"
    assert event.env_id == "2"  # -1 is how those producers say that they know none


def test_a_line_of_json_is_understood() -> None:
    line = json.dumps(
        {
            "event_type": "SEED_CULLED",
            "timestamp": NOON.isoformat(),
            "seed_id": "s",
            "epoch": 0,
            "severity": "WARNING",
            "data": {"reason": "late", "env_id": 0},
        }
    )
    event = normalize(json.loads(line))

    assert (event.time_unix_nano, event.epoch, event.env_id) == (NOON_NANO, 0, "0")
    assert event.severity is Severity.WARNING
    assert event.data == {"reason": "late"}


def test_what_an_event_writes_can_be_read_again() -> None:
    event = TelemetryEvent(EventType.ISOLATION_VIOLATION, seed_id="s", epoch=0, env_id="0", data={"count": 3})

    assert normalize(json.loads(json.dumps(event.to_dict()))) == event


Named = namedtuple("Named", ["event_type", "seed_id"])  # noqa: PYI024 - as producers without types have them


class Slotted:
    __slots__ = ("event_type", "seed_id")

    def __init__(self) -> None:
        self.event_type, self.seed_id = "SEED_CULLED", "s"


class WithDefaults:
    event_type = "SEED_CULLED"

    @property
    def seed_id(self) -> str:
        return "s"


@pytest.mark.parametrize(
    "item", [Named("SEED_CULLED", "s"), Slotted(), WithDefaults()], ids=lambda it: type(it).__name__
)
def test_any_object_with_the_attributes_of_an_event_is_one(item: object) -> None:
    event = normalize(item)

    assert (event.event_type, event.seed_id) == ("SEED_CULLED", "s")


def test_zero_is_a_number_like_any_other() -> None:
    event = normalize({"event_type": "EPOCH_COMPLETED", "epoch": 0, "env_id": 0, "data": {"epoch": 7, "env_id": 7}})
    assert (event.epoch, event.env_id) == (0, "0")

    event = normalize({"event_type": "EPOCH_COMPLETED", "data": {"epoch": 0, "env_id": 0}}, env_id=7)
    assert (event.epoch, event.env_id) == (0, "0")

    assert normalize({"event_type": "EPOCH_COMPLETED"}, env_id=0).env_id == "0"
    assert normalize({"event_type": "EPOCH_COMPLETED", "time_unix_nano": 0}).time_unix_nano == 0


def test_an_event_type_that_counts_from_zero_has_a_name_too() -> None:
    class Zero(IntEnum):
        SEED_CULLED = 0

    assert normalize({"event_type": Zero.SEED_CULLED, "seed_id": "s"}).event_type is EventType.SEED_CULLED


def test_an_event_that_names_its_environment_keeps_it() -> None:
    assert normalize({"event_type": "EPOCH_COMPLETED", "env_id": 3}, env_id=0).env_id == "3"


def test_a_type_that_we_do_not_know_passes_untouched() -> None:
    data = {"from": "here", "to": 77, "params": 3, "accuracy": 50.0, "epoch": "third", "env_id": 1, "from_stage": 5}
    event = normalize({"event_type": "Route_Changed", "data": data}, percent=True)

    assert event.event_type == "Route_Changed"
    assert event.data == data
    assert (event.env_id, event.epoch) == ("1", None)


def test_an_old_type_that_we_do_not_emit_keeps_its_name() -> None:
    assert normalize(OldEvent(OldType.COMMAND_ISSUED)).event_type == "COMMAND_ISSUED"


def test_each_event_without_an_identity_gets_its_own() -> None:
    item = {"event_type": "X", "event_id": ""}

    assert normalize(item).event_id != normalize(item).event_id
