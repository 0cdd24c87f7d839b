"""Lives of seeds as counted by analytics: once at the beginning and once at the end."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Self

from nissa.events import EventType, Stage
from nissa.frozen import quick_init
from nissa.semconv.cardinality import OTHER

if TYPE_CHECKING:
    from nissa.analytics.records import BlueprintStats, Scoreboard
    from nissa.events import TelemetryEvent


MOST_NAMES: Final = 1_000
"""Maximum number of distinct blueprints, and of slots per blueprint; further ones are counted as ``other``."""


class LifeEvent(Enum):
    """Event in the life of a seed that is counted."""

    BEGAN = "germinated"
    FOSSILIZED = "fossilized"
    CULLED = "culled"


LIFE_EVENTS: Final[dict[str, LifeEvent]] = {
    EventType.SEED_GERMINATED: LifeEvent.BEGAN,
    EventType.SEED_FOSSILIZED: LifeEvent.FOSSILIZED,
    EventType.SEED_CULLED: LifeEvent.CULLED,
}
"""What is counted, by event type."""


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class SeedLife:
    """Beginning or end of a seed's life.

    Args:
        stage: Label of the stage that the seed left, ``unknown`` for a seed outside the state table.
    """

    kind: LifeEvent
    seed_id: str
    env_id: str | None
    blueprint: str | None
    slot: str | None
    parameters: int | None
    stage: str
    improvement: float | None = None
    blending_delta: float | None = None
    age: int | None = None
    reason: str | None = None

    @classmethod
    def of(cls, event: "TelemetryEvent") -> Self | None:
        """Return the beginning or end of a life from an event, None for other events."""
        kind = LIFE_EVENTS.get(event.event_type)
        if kind is None or event.seed_id is None or event.refused is not None:
            return None
        data, seed = event.data, event.seed
        ended = kind is not LifeEvent.BEGAN
        if seed is None:
            return cls(kind=kind, seed_id=event.seed_id, env_id=event.env_id, **_reported(event, ended=ended))
        delta = _number(data.get("blending_delta")) if ended else None
        improvement = data.get("improvement") if seed.improvement is None else seed.improvement
        left = seed if event.before is None else event.before
        return cls(
            kind=kind,
            seed_id=event.seed_id,
            env_id=event.env_id,
            blueprint=seed.blueprint_id,
            slot=seed.slot_id,
            parameters=seed.parameters,
            stage=left.stage.label,
            improvement=_number(improvement) if ended else None,
            blending_delta=seed.accuracy_delta if ended and delta is None else delta,
            age=seed.epochs_total if ended else None,
            reason=data.get("reason") if ended else None,
        )

    def account(self, stats: "BlueprintStats", board: "Scoreboard") -> None:
        """Add this to the statistics of its blueprint and environment."""
        if self.kind is LifeEvent.BEGAN:
            stats.germinated += 1
            board.germinated += 1
            if self.parameters is not None:
                stats.parameters.add(self.parameters)
            return
        if self.blending_delta is not None:
            stats.blending_delta.add(self.blending_delta)
        if self.kind is LifeEvent.FOSSILIZED:
            self._fossilized(stats, board)
        else:
            self._culled(stats, board)

    def _fossilized(self, stats: "BlueprintStats", board: "Scoreboard") -> None:
        stats.fossilized += 1
        board.fossilized += 1
        board.parameters_added += self.parameters or 0
        _count(board.distribution, self.blueprint or "<unknown>")
        if self.improvement is not None:
            stats.accuracy_delta.add(self.improvement)
        if self.age is not None:
            board.fossilize_age.add(self.age)
        if self.slot is not None:
            _count(stats.fossilized_by_slot, self.slot)

    def _culled(self, stats: "BlueprintStats", board: "Scoreboard") -> None:
        stats.culled += 1
        board.culled += 1
        _count(stats.culled_by_stage, self.stage)
        if self.improvement is not None:
            stats.churn.add(self.improvement)
        if self.age is not None:
            board.cull_age.add(self.age)
        if self.slot is not None:
            _count(stats.culled_by_slot, self.slot)

    def log_entry(self) -> tuple[str, dict[str, Any]]:
        """Return a log message and its fields."""
        text = f"{self.kind.value.capitalize()} {self.seed_id!r} ({self.blueprint or 'no blueprint'}"
        if self.kind is LifeEvent.BEGAN:
            text += "" if self.parameters is None else f", {self.parameters:,} parameters"
        elif self.improvement is not None:
            text += f", {self.improvement * 100:+.2f} points"
        fields = {
            "env_id": self.env_id,
            "seed_id": self.seed_id,
            "blueprint_id": self.blueprint,
            "slot_id": self.slot,
            "parameters": self.parameters,
            "improvement": self.improvement,
            "reason": self.reason,
        }
        known = {key: value for key, value in fields.items() if value is not None}
        return text + ")" + (f": {self.reason}" if self.reason else ""), known


def _reported(event: "TelemetryEvent", *, ended: bool) -> dict[str, Any]:
    """Return the fields of a seed outside the state table, from its producer's event data."""
    data = event.data
    blueprint, parameters = data.get("blueprint_id"), _number(data.get("parameters"))
    facts = {
        "blueprint": None if blueprint is None else str(blueprint),
        "slot": event.slot_id,
        "parameters": None if parameters is None else int(parameters),
        "stage": Stage.UNKNOWN.label,
    }
    if not ended:
        return facts
    numbers = {name: _number(data.get(name)) for name in ("improvement", "blending_delta")}
    return {**facts, **numbers, "reason": data.get("reason")}


def _count(counts: dict[str, int], key: str) -> None:
    own = key if key in counts or len(counts) < MOST_NAMES else OTHER
    counts[own] = counts.get(own, 0) + 1


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
