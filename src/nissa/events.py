"""What can happen to a training run: frozen values that carry their own time.

An event is built where something happens, passes the hub, and reaches each backend as it was: nothing downstream
asks the clock again. Seed events additionally carry a `SeedSnapshot` of that seed before and after the event, so that a
backend needs no state table of its own.

A seed ends with exactly one event, SEED_FOSSILIZED or SEED_CULLED, however its producer signalled the end.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from numbers import Integral
from typing import Any, Self

from nissa.errors import UnknownNameError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventType(StrEnum):
    """The kinds of event that Nissa itself emits; other kinds pass through to the backends untouched."""

    SEED_GERMINATED = "SEED_GERMINATED"
    SEED_STAGE_CHANGED = "SEED_STAGE_CHANGED"
    SEED_GATE_EVALUATED = "SEED_GATE_EVALUATED"
    SEED_FOSSILIZED = "SEED_FOSSILIZED"
    SEED_CULLED = "SEED_CULLED"
    ISOLATION_VIOLATION = "ISOLATION_VIOLATION"
    TRAINING_STARTED = "TRAINING_STARTED"
    TRAINING_ENDED = "TRAINING_ENDED"
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


class Severity(StrEnum):
    """How much an operator should care."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Stage(IntEnum):
    """Where a seed is in its life; the numbers are those of the original's wire format."""

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

    @property
    def label(self) -> str:
        """The stage's name as telemetry shows it, for example ``"training"``."""
        return self.name.lower()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the stage that a name (any case, aliases included), number or enum member of another package means.

        Raises:
            UnknownNameError: No stage is called that.
        """
        given = getattr(value, "name", value)
        if isinstance(given, str) and given.upper() in cls.__members__:
            return cls[given.upper()]
        if not isinstance(given, bool) and isinstance(given, Integral) and int(given) in cls._value2member_map_:
            return cls(int(given))
        raise UnknownNameError("stage", str(given), cls.__members__)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate decided about a seed, and on which checks.

    Args:
        gate: Name of the gate, for example ``"G2"``.
        passed: Whether the seed may go on.
        score: How clearly, 0 to 1; None where the gate has no score.
        checks_passed: Names of the checks that held; ``name_value`` such as ``"improvement_1.20%"`` is fine.
        checks_failed: Names of the checks that did not.
        message: A sentence for people.
    """

    gate: str
    passed: bool
    score: float | None = None
    checks_passed: tuple[str, ...] = ()
    checks_failed: tuple[str, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        """Freeze the check lists."""
        object.__setattr__(self, "checks_passed", tuple(self.checks_passed))
        object.__setattr__(self, "checks_failed", tuple(self.checks_failed))


@dataclass(frozen=True, slots=True)
class SpanIds:
    """Identity of a span that a backend may create later (W3C Trace Context: 16 and 8 bytes)."""

    trace_id: int
    span_id: int

    @property
    def trace_hex(self) -> str:
        """The trace id as trace viewers show it, 32 hex digits."""
        return f"{self.trace_id:032x}"


@dataclass(frozen=True, slots=True)
class SeedSnapshot:
    """A seed just after an event.

    Args:
        ids: Trace id of the seed's life and span id of its root span in this process.
        first_root: Span id of the life's first root span; differs from ``ids.span_id`` in a resumed seed.
        attempt: 0 in the process where the seed germinated, one more for each resumption.
        previous: Stage before the latest transition, None before there was one.
        stage_since: When the present stage was entered, nanoseconds since the epoch.
        epochs_total: Epochs of the seed's environment that ended since it germinated.
        improvement: Change of validation accuracy as a fraction, None where nobody measured it.
        accuracy: Accuracy of the newest validation of the seed's environment, None where it measured none.
        accuracy_before: Accuracy of the newest validation before the seed began to blend, None where there was none.
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


@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """Something that happened, when, and to what.

    Args:
        event_type: An `EventType` or any other name; names that Nissa does not know pass through.
        seed_id: Which seed, for events about a seed.
        slot_id: Where in the host the seed is grafted.
        epoch: Epoch number; 0 is a number like any other.
        data: Details. The emitter may go on changing it until `NissaHub.emit`, which copies it.
        message: A sentence for people.
        severity: How much an operator should care.
        env_id: Which parallel environment, None where there is only one.
        time_unix_nano: When it happened, nanoseconds since the Unix epoch.
        event_id: Identity for de-duplication.
        seed: The seed after the event; filled in by the run that listens.
        before: The seed before the event, None where its life began with it or the event was refused.
        refused: Why the state table refused the event, None where it did not.
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
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    seed: SeedSnapshot | None = None
    refused: str | None = None
    before: SeedSnapshot | None = None

    @property
    def timestamp(self) -> datetime:
        """When it happened, as an aware UTC datetime (microseconds; `time_unix_nano` has them all)."""
        return _EPOCH + timedelta(microseconds=self.time_unix_nano // 1000)

    @property
    def is_lifecycle(self) -> bool:
        """Whether losing this event would leave a seed, epoch or run in a wrong state forever."""
        return self.event_type in _LIFECYCLE

    @property
    def transition(self) -> tuple[Stage, Stage] | None:
        """The stages that the event led from and to, None where it changed no stage."""
        if self.before is None or self.seed is None or self.before.stage is self.seed.stage:
            return None
        return self.before.stage, self.seed.stage

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain data; what is absent is left out."""
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
            "stage": self.seed.stage.label if self.seed else None,
            "stage_before": self.transition[0].label if self.transition else None,
            "blueprint_id": self.seed.blueprint_id if self.seed else None,
            "trace_id": self.seed.ids.trace_hex if self.seed else None,
            "refused": self.refused,
        }
        return {key: value for key, value in plain.items() if value is not None}


_LIFECYCLE = frozenset(EventType) - {EventType.GRADIENT_ANOMALY}


def nanoseconds(moment: datetime) -> int:
    """Return a datetime as nanoseconds since the Unix epoch, exactly; a naive one is taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment
    since = aware - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """Return a payload's attributes as a mapping: a mapping itself, or what an object holds; None where neither."""
    if isinstance(value, Mapping):
        return value
    names = getattr(type(value), "__dataclass_fields__", None)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    attributes = getattr(value, "__dict__", None)
    return dict(attributes) if attributes is not None else None
