"""Events of a training run: frozen values, each with its own timestamp.

An event is created where something happens, passes through the hub, and reaches each backend with its original
timestamp. Seed events additionally carry a `SeedSnapshot` of the seed before and after the event, so that backends need
no state table of their own.

Each seed ends with exactly one event, SEED_FOSSILIZED or SEED_CULLED, even if its producer signals the end in another
way.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from numbers import Integral
from typing import Any, Final, Self

from nissa.errors import UnknownNameError
from nissa.frozen import quick_changed, quick_init
from nissa.random_ids import new_event_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventType(StrEnum):
    """Event types that Nissa emits; other types pass through to the backends unchanged."""

    SEED_GERMINATED = "SEED_GERMINATED"
    SEED_STAGE_CHANGED = "SEED_STAGE_CHANGED"
    SEED_GATE_EVALUATED = "SEED_GATE_EVALUATED"
    SEED_FOSSILIZED = "SEED_FOSSILIZED"
    SEED_CULLED = "SEED_CULLED"
    ISOLATION_VIOLATION = "ISOLATION_VIOLATION"
    TRAINING_STARTED = "TRAINING_STARTED"
    TRAINING_ENDED = "TRAINING_ENDED"
    PROCESS_DESCRIBED = "PROCESS_DESCRIBED"
    CHECKPOINT_SAVED = "CHECKPOINT_SAVED"
    CHECKPOINT_LOADED = "CHECKPOINT_LOADED"
    EPOCH_STARTED = "EPOCH_STARTED"
    EPOCH_COMPLETED = "EPOCH_COMPLETED"
    PLATEAU_DETECTED = "PLATEAU_DETECTED"
    IMPROVEMENT_DETECTED = "IMPROVEMENT_DETECTED"
    PERFORMANCE_DEGRADATION = "PERFORMANCE_DEGRADATION"
    GRADIENT_ANOMALY = "GRADIENT_ANOMALY"
    RED_FLAG_RAISED = "RED_FLAG_RAISED"
    RED_FLAG_CLEARED = "RED_FLAG_CLEARED"
    LOG_RECORDED = "LOG_RECORDED"
    TORCH_WARNING = "TORCH_WARNING"

    # That of `Enum` is written in Python, and each event is looked up in a dozen dictionaries and sets.
    __hash__ = str.__hash__


class Severity(StrEnum):
    """Severity of an event."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Stage(IntEnum):
    """Stage of a seed's life; the numbers are those of the wire format of the original Nissa."""

    UNKNOWN = 0
    DORMANT = 1
    GERMINATED = 2
    TRAINING = 3
    BLENDING = 4
    SHADOWING = 5
    PROBATIONARY = 6
    HOLDING = 6
    FOSSILIZED = 7
    CULLED = 8
    PRUNED = 8
    EMBARGOED = 9
    RESETTING = 10

    __hash__ = int.__hash__  # see `EventType`

    label: str
    """Name of the stage in telemetry, for example ``"training"``."""

    def __init__(self, _number: int) -> None:
        self.label = self._name_.lower()

    @staticmethod
    def named(value: object) -> "Stage | None":
        """Return the stage for its usual name or label; None for anything else, which `parse` may understand."""
        return _STAGES.get(value) if type(value) is str else None

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the stage for a name (any case, aliases included), a number or an enum member of another package.

        Raises:
            UnknownNameError: The stage does not exist.
        """
        if type(value) is cls:
            return value
        if type(value) is str and (known := _STAGES.get(value)) is not None:
            return known
        given = getattr(value, "name", value)
        if isinstance(given, str) and (found := cls.__members__.get(given.upper())) is not None:
            return found
        if not isinstance(given, bool) and isinstance(given, Integral) and int(given) in cls._value2member_map_:
            return cls(int(given))
        raise UnknownNameError("stage", str(given), cls.__members__)


_STAGES: Final = {spelling: stage for name, stage in Stage.__members__.items() for spelling in (name, name.lower())}
"""Stages by their usual spellings."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """Decision of a gate about a seed, with the checks that it is based on.

    Args:
        gate: Name of the gate, for example ``"G2"``.
        passed: Whether the seed may enter the next stage.
        score: Score of the decision, 0 to 1; None if the gate has no score.
        checks_passed: Names of the passed checks; ``name_value`` such as ``"improvement_1.20%"`` is accepted.
        checks_failed: Names of the failed checks.
        message: A sentence for people.
    """

    gate: str
    passed: bool
    score: float | None = None
    checks_passed: tuple[str, ...] = ()
    checks_failed: tuple[str, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        """Convert the check lists to tuples; a single text is one check."""
        for name in ("checks_passed", "checks_failed"):
            checks = getattr(self, name)
            if isinstance(checks, str):
                object.__setattr__(self, name, (checks,))
            elif isinstance(checks, Iterable):  # anything else is refused by `Seed.gate`
                object.__setattr__(self, name, tuple(checks))


@quick_init
@dataclass(frozen=True, slots=True)
class SpanIds:
    """Identity of a span that a backend may create later (W3C Trace Context: 16 and 8 bytes)."""

    trace_id: int
    span_id: int

    @property
    def trace_hex(self) -> str:
        """Trace id as 32 hex digits, as trace viewers show it."""
        return f"{self.trace_id:032x}"


@quick_init
@dataclass(frozen=True, slots=True)
class SeedSnapshot:
    """State of a seed just after an event.

    Args:
        ids: Trace id of the seed's life and span id of its root span in this process.
        first_root: Span id of the life's first root span; differs from ``ids.span_id`` in a resumed seed.
        attempt: 0 in the process where the seed germinated, incremented at each resumption.
        previous: Stage before the latest transition, None before the first one.
        stage_since: Start of the current stage, nanoseconds since the Unix epoch.
        epochs_total: Epochs of the seed's environment that ended since the seed germinated.
        improvement: Change of validation accuracy as a fraction, None if it was not measured.
        accuracy: Accuracy of the newest validation of the seed's environment, None if it was not measured.
        accuracy_before: Accuracy of the newest validation before the seed began to blend, None if not measured.
        accuracy_delta: Change of validation accuracy since the seed began to blend, None until one is measured after.
    """

    seed_id: str
    env_id: str | None
    slot_id: str | None
    blueprint_id: str | None
    parameters: int | None
    ids: SpanIds
    first_root: int
    attempt: int
    stage: Stage
    previous: Stage | None
    germinated_at: int
    stage_since: int
    epochs_total: int
    epochs_in_stage: int
    alpha: float | None
    improvement: float | None
    isolation_violations: int
    accuracy: float | None = None
    accuracy_before: float | None = None
    accuracy_delta: float | None = None


@quick_changed
@quick_init
@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """One event of a training run.

    Args:
        event_type: An `EventType` or any other name; unknown names pass through.
        seed_id: Id of the seed, for events about a seed.
        slot_id: Place in the host where the seed is grafted.
        epoch: Epoch number; 0 is valid.
        data: Details. The emitter may modify it until `NissaHub.emit`, which copies it.
        message: A sentence for people.
        severity: Severity of the event.
        env_id: Id of the parallel environment, None if there is only one.
        time_unix_nano: Time of the event, nanoseconds since the Unix epoch.
        event_id: Identity for de-duplication.
        seed: State of the seed after the event; set by the active run.
        before: State of the seed before the event; None if the event began its life or was refused.
        refused: Reason why the state table refused the event, None if it was accepted.
        truncated: Whether the hub left out a part of ``data`` because of its limits.
    """

    event_type: str
    seed_id: str | None = None
    slot_id: str | None = None
    epoch: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    severity: Severity = Severity.INFO
    env_id: str | None = None
    time_unix_nano: int = field(default_factory=time.time_ns)
    event_id: str = field(default_factory=new_event_id)
    seed: SeedSnapshot | None = None
    refused: str | None = None
    before: SeedSnapshot | None = None
    truncated: bool = False

    def changed(self, **fields: Any) -> "TelemetryEvent":
        """Return the event with other values of some fields."""
        return replace(self, **fields)

    @property
    def timestamp(self) -> datetime:
        """Time of the event as an aware UTC datetime, in microseconds; `time_unix_nano` has the full resolution."""
        return _EPOCH + timedelta(microseconds=self.time_unix_nano // 1000)

    @property
    def is_lifecycle(self) -> bool:
        """Whether the loss of this event would leave a seed, epoch or run in a wrong state permanently."""
        return self.event_type in LIFECYCLE

    @property
    def transition(self) -> tuple[Stage, Stage] | None:
        """Stages before and after the event, None if it did not change the stage."""
        if self.before is None or self.seed is None or self.before.stage is self.seed.stage:
            return None
        return self.before.stage, self.seed.stage

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain data, without fields that are None or empty."""
        plain: dict[str, Any] = {
            "event_id": self.event_id,
            "event_type": str(self.event_type),
            "time_unix_nano": self.time_unix_nano,
            "severity": str(self.severity),
            "env_id": self.env_id,
            "seed_id": self.seed_id,
            "slot_id": self.slot_id,
            "epoch": self.epoch,
            "message": self.message or None,
            "data": dict(self.data) or None,
        }
        if self.seed is not None:
            transition = self.transition
            plain["stage"] = self.seed.stage.label
            plain["stage_before"] = transition[0].label if transition else None
            plain["blueprint_id"] = self.seed.blueprint_id
            plain["trace_id"] = self.seed.ids.trace_hex
        plain["refused"] = self.refused
        plain["truncated"] = self.truncated or None
        return {key: value for key, value in plain.items() if value is not None}


LIFECYCLE: Final = frozenset(EventType) - {EventType.GRADIENT_ANOMALY, EventType.LOG_RECORDED, EventType.TORCH_WARNING}
"""Event types whose loss would leave a seed, epoch or run in a wrong state permanently."""


def nanoseconds(moment: datetime) -> int:
    """Return a datetime as nanoseconds since the Unix epoch, exactly; a naive datetime is treated as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment
    since = aware - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def json_number(value: float) -> float | str:
    """Return a number as strict JSON can hold it: NaN and infinities become text, spelled as in OTLP JSON.

    Example: ``0.5`` stays ``0.5``, and ``-math.inf`` becomes ``"-Infinity"``.
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """Return a mapping unchanged, and the attributes of an object as a mapping; None if it has no attributes."""
    if isinstance(value, Mapping):
        return value
    names = getattr(type(value), "__dataclass_fields__", None)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    attributes = getattr(value, "__dict__", None)
    return dict(attributes) if attributes is not None else None
