"""The seeds that are alive, from the events about them: each life is accounted for once at each end."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from nissa.events import IMPLIED, EventType, Stage

if TYPE_CHECKING:
    from nissa.analytics.records import BlueprintStats, Scoreboard
    from nissa.events import TelemetryEvent

_MOST: Final = 100_000
"""Lives that are remembered at most; beyond it the oldest, whose seeds will hardly end any more, are forgotten."""


class Part(Enum):
    """What of a life is to be accounted for."""

    BEGAN = "germinated"
    FOSSILIZED = "fossilized"
    CULLED = "culled"


@dataclass(slots=True)
class _Alive:
    env_id: str | None
    blueprint: str | None
    slot: str | None
    parameters: int | None
    stage: str = Stage.GERMINATED.label
    accuracy_before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What happened to a seed, as far as analytics counts it."""

    part: Part
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

    def account(self, stats: "BlueprintStats", board: "Scoreboard") -> None:
        """Add it to what is known of its blueprint and environment."""
        if self.part is Part.BEGAN:
            stats.germinated += 1
            board.germinated += 1
            if self.parameters is not None:
                stats.parameters.add(self.parameters)
            return
        if self.blending_delta is not None:
            stats.blending_delta.add(self.blending_delta)
        if self.part is Part.FOSSILIZED:
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

    def told(self) -> tuple[str, dict[str, Any]]:
        """Return a line for the log, and its fields."""
        text = f"{self.part.value.capitalize()} {self.seed_id!r} ({self.blueprint or 'no blueprint'}"
        if self.part is Part.BEGAN:
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
        told = {key: value for key, value in fields.items() if value is not None}
        return text + ")" + (f": {self.reason}" if self.reason else ""), told


class Lives:
    """Follows seeds from germination to their end."""

    def __init__(self) -> None:
        self._alive: dict[tuple[str | None, str], _Alive] = {}
        self._ended: dict[tuple[str | None, str], None] = {}
        self._accuracies: dict[str | None, float] = {}

    def take(self, event: "TelemetryEvent") -> Iterator[Life]:
        """Yield what is to be accounted for after an event."""
        if event.seed_id is None or event.refused is not None:
            return
        if event.event_type == EventType.SEED_GERMINATED:
            yield self._begin(event, event.seed_id)
        elif event.event_type == EventType.CHECKPOINT_LOADED and event.seed is not None:
            self._begin(event, event.seed_id)
        elif event.event_type in _ENDS:
            yield from self._end(event, event.seed_id, _ENDS[EventType(event.event_type)])
        elif event.event_type == EventType.SEED_STAGE_CHANGED:
            yield from self._advance(event, event.seed_id)

    def validated(self, env_id: str | None, accuracy: float) -> None:
        """Remember an environment's newest validation accuracy."""
        if math.isfinite(accuracy):
            self._accuracies[env_id] = accuracy

    def alive(self, env: str, unknown: str) -> dict[str, str]:
        """Return the blueprint of each live seed of an environment, by id."""
        here = {seed: life for (env_id, seed), life in self._alive.items() if _matches(env_id, env)}
        return {seed: life.blueprint or unknown for seed, life in here.items()}

    def forget(self, env: str) -> None:
        """Forget an environment's seeds and accuracy."""
        for key in [key for key in self._alive if _matches(key[0], env)]:
            del self._alive[key]
        for env_id in [each for each in self._accuracies if _matches(each, env)]:
            del self._accuracies[env_id]

    def _begin(self, event: "TelemetryEvent", seed_id: str) -> Life:
        known = _Alive(event.env_id, _blueprint(event), _slot(event), _parameters(event))
        if event.seed is not None:
            known.stage = event.seed.stage.label
        self._alive[event.env_id, seed_id] = known
        self._ended.pop((event.env_id, seed_id), None)
        if len(self._alive) > _MOST:
            del self._alive[next(iter(self._alive))]
        return _life(Part.BEGAN, seed_id, known)

    def _advance(self, event: "TelemetryEvent", seed_id: str) -> Iterator[Life]:
        known, stage = self._alive.get((event.env_id, seed_id)), _stage(event)
        if known is None or stage is None:
            return
        if stage in _LAST:
            if not event.event_id.endswith(IMPLIED):  # else the event that implied it follows, and knows more
                yield from self._end(event, seed_id, _LAST[stage])
            return
        known.stage = stage.label
        if stage is Stage.BLENDING and known.accuracy_before is None:
            known.accuracy_before = self._accuracies.get(event.env_id)

    def _end(self, event: "TelemetryEvent", seed_id: str, part: Part) -> Iterator[Life]:
        key = (event.env_id, seed_id)
        known = self._alive.pop(key, None)
        if known is None and key in self._ended:
            return  # its last change of stage has told already
        self._ended[key] = None
        if len(self._ended) > _MOST:
            del self._ended[next(iter(self._ended))]
        if known is None:
            known = _Alive(event.env_id, _blueprint(event), _slot(event), _parameters(event), Stage.UNKNOWN.label)
        yield _life(
            part,
            seed_id,
            known,
            improvement=_improvement(event),
            blending_delta=self._blended(event, known),
            age=None if event.seed is None else event.seed.epochs_total,
            reason=event.data.get("reason"),
        )

    def _blended(self, event: "TelemetryEvent", known: _Alive) -> float | None:
        told = _number(event.data.get("blending_delta"))
        after = self._accuracies.get(event.env_id)
        if told is not None or known.accuracy_before is None or after is None:
            return told
        return after - known.accuracy_before


_LAST: Final = {Stage.FOSSILIZED: Part.FOSSILIZED, Stage.CULLED: Part.CULLED}
_ENDS: Final = {EventType.SEED_FOSSILIZED: Part.FOSSILIZED, EventType.SEED_CULLED: Part.CULLED}


def _life(part: Part, seed_id: str, known: _Alive, **more: Any) -> Life:
    return Life(
        part=part,
        seed_id=seed_id,
        env_id=known.env_id,
        blueprint=known.blueprint,
        slot=known.slot,
        parameters=known.parameters,
        stage=known.stage,
        **more,
    )


def _matches(env_id: str | None, env: str) -> bool:
    return env == ("run" if env_id is None else str(env_id))


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _blueprint(event: "TelemetryEvent") -> str | None:
    told = event.data.get("blueprint_id") if event.seed is None else event.seed.blueprint_id
    return None if told is None else str(told)


def _slot(event: "TelemetryEvent") -> str | None:
    return event.slot_id if event.seed is None else event.seed.slot_id


def _parameters(event: "TelemetryEvent") -> int | None:
    if event.seed is not None:
        return event.seed.parameters
    told = _number(event.data.get("parameters"))
    return None if told is None else int(told)


def _improvement(event: "TelemetryEvent") -> float | None:
    told = None if event.seed is None else event.seed.improvement
    return _number(event.data.get("improvement")) if told is None else _number(told)


def _stage(event: "TelemetryEvent") -> Stage | None:
    return None if event.seed is None else event.seed.stage


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
