"""What happened to seeds from one validation to the next, most important first.

A seed that changed its stage or its alpha is told of once, at the next validation. What it brought is the change of
validation accuracy since it began to blend: before, the host does not see it.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nissa.events import SeedSnapshot, Stage

SENTENCES: Final[dict[Stage, str]] = {
    Stage.CULLED: "{seed} culled",
    Stage.FOSSILIZED: "{seed} fossilized",
    Stage.BLENDING: "{seed} blended to {alpha}",
    Stage.PROBATIONARY: "{seed} on probation",
    Stage.SHADOWING: "{seed} in shadow",
    Stage.TRAINING: "{seed} in training",
    Stage.GERMINATED: "{seed} germinated",
}
"""By stage, most important first; stages without one are not told of."""

POINTS: Final = ", {points} points"
"""Follows where the seed's change of validation accuracy is known."""
RATIO: Final = ", gradient ratio {ratio}"
"""Follows where the gradients of a growing seed were measured beside those of its host."""

MOST_NAME: Final = 32
_GROWING: Final = frozenset({Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY})
_BLENDED: Final = frozenset({Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY, Stage.FOSSILIZED})
_ORDER: Final = {stage: place for place, stage in enumerate(SENTENCES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFinding:
    """What happened to one seed since the validation before.

    Args:
        stage: Where it is now, lower case.
        previous: The stage before, where that is what changed.
        alpha: How far it is blended in, 0 to 1.
        accuracy_delta: What it brought, as a fraction: what the end of its life was told with, else the change of
            validation accuracy since it began to blend.
        gradient_ratio: Root mean square of its gradients over that of its host's, while it grows.
        sentence: All of it in a few words.
    """

    seed_id: str
    stage: str
    blueprint: str | None = None
    slot: str | None = None
    previous: str | None = None
    alpha: float | None = None
    accuracy_delta: float | None = None
    gradient_ratio: float | None = None
    sentence: str = ""


@dataclass(slots=True)
class _Known:
    stage: Stage | None = None
    alpha: float | None = None
    blended: bool = False
    accuracy_before: float | None = None


class SeedLedger:
    """Remembers what was told of each seed of one environment, and what accuracy was before it blended."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._accuracies: list[tuple[int, float]] = []

    def findings(
        self, seeds: Sequence[SeedSnapshot], ratios: Mapping[str, float], accuracy: float | None, at: int
    ) -> tuple[SeedFinding, ...]:
        """Return what happened since the call before, and take this validation into account.

        Args:
            seeds: All that the environment has.
            ratios: Their gradient ratios by slot.
            accuracy: Validation accuracy as a fraction.
            at: Time of the validation, nanoseconds since the Unix epoch.
        """
        self._known = {seed.ids.span_id: self._known.get(seed.ids.span_id, _Known()) for seed in seeds}
        for seed in seeds:
            self._note_blending(seed)
        if accuracy is not None and math.isfinite(accuracy):
            self._accuracies = [*self._accuracies[-1:], (at, accuracy)]
        moved = [seed for seed in seeds if self._moved(seed)]
        found = [self._finding(seed, ratios, accuracy) for seed in moved if seed.stage in SENTENCES]
        for seed in seeds:
            known = self._known[seed.ids.span_id]
            known.stage, known.alpha = seed.stage, seed.alpha
        return tuple(sorted(found, key=lambda each: _ORDER[Stage.parse(each.stage)]))

    def accuracy_delta(self, seed: SeedSnapshot, accuracy: float | None) -> float | None:
        """Return the change of validation accuracy since a seed began to blend; None where that is not known."""
        self._note_blending(seed)
        known = self._known.get(seed.ids.span_id)
        if known is None or known.accuracy_before is None or accuracy is None or not math.isfinite(accuracy):
            return None
        return accuracy - known.accuracy_before

    def _note_blending(self, seed: SeedSnapshot) -> None:
        """Keep the accuracy of the newest validation before a seed began to blend."""
        known = self._known.setdefault(seed.ids.span_id, _Known())
        if known.blended or seed.stage not in _BLENDED:
            return
        known.blended = True
        before = bisect_right(self._accuracies, seed.stage_since, key=lambda each: each[0])
        if before:
            known.accuracy_before = self._accuracies[before - 1][1]

    def _moved(self, seed: SeedSnapshot) -> bool:
        known = self._known[seed.ids.span_id]
        return seed.stage is not known.stage or (seed.stage is Stage.BLENDING and seed.alpha != known.alpha)

    def _finding(self, seed: SeedSnapshot, ratios: Mapping[str, float], accuracy: float | None) -> SeedFinding:
        brought = seed.improvement if seed.improvement is not None else self.accuracy_delta(seed, accuracy)
        ratio = ratios.get(seed.slot_id) if seed.slot_id is not None and seed.stage in _GROWING else None
        known = self._known[seed.ids.span_id]
        changed = seed.previous is not None and seed.stage is not known.stage
        return SeedFinding(
            seed_id=seed.seed_id,
            stage=seed.stage.label,
            blueprint=seed.blueprint_id,
            slot=seed.slot_id,
            previous=seed.previous.label if changed and seed.previous is not None else None,
            alpha=seed.alpha,
            accuracy_delta=brought,
            gradient_ratio=ratio,
            sentence=_sentence(seed, brought, ratio),
        )


def _sentence(seed: SeedSnapshot, brought: float | None, ratio: float | None) -> str:
    name = short(seed.seed_id, MOST_NAME)
    who = name if seed.blueprint_id is None else f"{name} ({short(seed.blueprint_id, MOST_NAME)})"
    template = SENTENCES[seed.stage]
    if seed.stage is Stage.BLENDING and seed.alpha is None:
        template = "{seed} blending"
    alpha = "" if seed.alpha is None else f"{seed.alpha:.2g}"
    said = template.format(seed=who, alpha=alpha)
    said += "" if brought is None else POINTS.format(points=figure(brought * 100, "+.1f"))
    return said + ("" if ratio is None else RATIO.format(ratio=figure(ratio, ".2f")))


_LARGE: Final = 1e6


def figure(value: float, form: str = ".3f") -> str:
    """Return a number with the decimals of a form; one that would be long, in powers of ten."""
    return format(value, form if abs(value) < _LARGE else ".3g")


def short(text: str, most: int) -> str:
    """Return text on one line, without what separates sentences, and no longer than it may be."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
