"""User handle of one seed. Every call becomes an event, and events drive the state table."""

from collections.abc import Callable
from typing import Any

from nissa.events import EventType, GateResult, Severity, SpanIds, Stage, TelemetryEvent
from nissa.seeds import inputs
from nissa.seeds.checkpoint import state_dict
from nissa.seeds.inputs import Refuse, SeedInputs
from nissa.seeds.slots import SeedKey, SeedRecord, Slots


class Seed:
    """Handle of one seed's life in this process, returned by ``run.germinate`` and ``run.resume_seed``.

    No method blocks. A stage change outside the stage table is refused, logged and counted; it raises
    `TransitionError` only under ``strict=True``. An invalid value is absent, logged and counted; it raises
    `InvalidValueError` only under ``strict=True``.
    """

    def __init__(
        self,
        record: SeedRecord,
        slots: Slots,
        send: Callable[..., object],
        *,
        clock: Callable[[], int],
        features: Callable[[SeedRecord], tuple[float, ...]],
        refuse: Refuse,
    ) -> None:
        self._key: SeedKey = record.key
        self._life = record
        self._slots = slots
        self._send = send
        self._clock = clock
        self._features = features
        self._inputs = SeedInputs(refuse)

    def __repr__(self) -> str:
        return f"<Seed {self.seed_id!r} {self.blueprint or '?'} at {self.slot or '?'}: {self.stage.label}>"

    @property
    def seed_id(self) -> str:
        """The seed's id, unique among the live seeds of its environment."""
        return self._life.seed_id

    @property
    def blueprint(self) -> str | None:
        """Blueprint of the seed."""
        return self._life.blueprint_id

    @property
    def slot(self) -> str | None:
        """Slot of the host where the seed is grafted."""
        return self._life.slot_id

    @property
    def parameters(self) -> int | None:
        """Number of parameters, None where unknown."""
        return self._life.parameters

    @property
    def stage(self) -> Stage:
        """Current stage."""
        return self._life.stage

    @property
    def alpha(self) -> float | None:
        """Weight of the seed's output, 0 to 1."""
        return self._life.alpha

    @property
    def improvement(self) -> float | None:
        """Change of validation accuracy as a fraction, None where not measured."""
        return self._life.improvement

    @property
    def ids(self) -> SpanIds:
        """Ids of the seed's trace and of its root span in this process."""
        return self._life.ids

    @property
    def trace_id(self) -> str:
        """Trace id as 32 hex digits, as trace viewers show it."""
        return self._life.ids.trace_hex

    @property
    def history(self) -> tuple[tuple[str, int], ...]:
        """Stages entered so far, each with its time in nanoseconds since the Unix epoch."""
        return tuple(self._life.history)

    def advance(self, stage: Stage | str, *, alpha: float | None = None) -> None:
        """Move the seed to a stage.

        Args:
            stage: A `Stage` or its name.
            alpha: Current weight of the seed's output, 0 to 1.

        Raises:
            InvalidValueError: No stage has this name, or alpha is not from 0 to 1, and the run is strict.
            TransitionError: The stage table forbids the change, and the run is strict.
        """
        target = Stage.named(stage) or self._inputs.require("advance()", inputs.stage, stage)
        weight = None if alpha is None else self._inputs.require("advance(alpha=...)", inputs.fraction, alpha)
        if target is None:
            return
        if target is Stage.FOSSILIZED:
            self._emit(EventType.SEED_FOSSILIZED, {"parameters": self.parameters, "alpha": weight}, plain=True)
        elif target is Stage.CULLED:
            self._emit(EventType.SEED_CULLED, {"alpha": weight}, plain=True)
        else:
            change = {"from": self._life.stage.label, "to": target.label, "alpha": weight}
            self._emit(EventType.SEED_STAGE_CHANGED, change, plain=True)

    def gate(self, result: GateResult) -> None:
        """Record the result of a gate.

        Raises:
            InvalidValueError: The result is not a `GateResult`, or one of its fields is invalid, and the run is strict.
        """
        data = self._inputs.gate(result)
        if data is not None:
            message = self._inputs.accept(
                "gate(GateResult(message=...))", inputs.text, getattr(result, "message", None)
            )
            self._emit(EventType.SEED_GATE_EVALUATED, data, message=message or "")

    def set_alpha(self, alpha: float) -> None:
        """Set the weight of the seed's output, 0 to 1; exported with the next event and epoch.

        Raises:
            InvalidValueError: It is not a number from 0 to 1, and the run is strict.
        """
        weight = self._inputs.require("set_alpha()", inputs.fraction, alpha)
        if weight is not None and self._slots.get(self._key) is self._life:
            self._life.alpha = weight

    def isolation_violation(self, message: str = "") -> None:
        """Record that training the seed changed the host, or that training the host changed the seed."""
        said = self._inputs.accept("isolation_violation()", inputs.text, message)
        self._emit(EventType.ISOLATION_VIOLATION, {}, message=said or "", severity=Severity.WARNING)

    def fossilize(self, *, improvement: float | None = None) -> None:
        """Make the seed a permanent part of the host.

        Args:
            improvement: Change of validation accuracy due to the seed, as a fraction (0.025 is 2.5 points).

        Raises:
            InvalidValueError: The improvement is not a fraction, and the run is strict.
            TransitionError: The stage table forbids the change, and the run is strict.
        """
        gain = self._inputs.accept("fossilize(improvement=...)", inputs.change, improvement)
        self._emit(EventType.SEED_FOSSILIZED, {"improvement": gain, "parameters": self.parameters}, plain=True)

    def cull(self, *, reason: str | None, improvement: float | None = None) -> None:
        """Remove the seed.

        Args:
            reason: Reason as a searchable label: few distinct values, without numbers.
            improvement: Change of validation accuracy due to the seed, as a fraction.

        Raises:
            InvalidValueError: The reason is not text, or the improvement is not a fraction, and the run is strict.
            TransitionError: The stage table forbids the change, and the run is strict.
        """
        why = self._inputs.accept("cull(reason=...)", inputs.label, reason)
        gain = self._inputs.accept("cull(improvement=...)", inputs.change, improvement)
        self._emit(EventType.SEED_CULLED, {"reason": why, "improvement": gain}, plain=True)

    def features(self) -> tuple[float, ...]:
        """Return the seed's bounded feature vector for a policy, as specified by ``nissa.config.SEED_FEATURES``."""
        return self._features(self._life)

    def state_dict(self) -> dict[str, Any]:
        """Return the seed's state for a checkpoint; ``run.resume_seed`` continues the same trace from it."""
        return state_dict(self._life)

    def _emit(
        self,
        kind: EventType,
        data: dict[str, Any],
        *,
        message: str = "",
        severity: Severity = Severity.INFO,
        plain: bool = False,
    ) -> None:
        """Send an event. Plain data are names and numbers that were checked, so that they need no conversion."""
        life = self._life
        if None in data.values():
            data = {key: value for key, value in data.items() if value is not None}
        at = self._clock()
        event = TelemetryEvent(kind, life.seed_id, life.slot_id, None, data, message, severity, life.env_id, at)
        known = self._slots.get(self._key)
        if known is None:
            event = event.changed(refused=f"Seed {self.seed_id!r} is not recorded: its beginning was refused.")
        elif known is not life:
            event = event.changed(refused=f"Seed {self.seed_id!r} has a later life of the same name; use its handle.")
        self._send(event, plain=plain)
