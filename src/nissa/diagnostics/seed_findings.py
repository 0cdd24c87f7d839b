"""What happened to seeds from one validation to the next, most important first.

A seed that changed its stage or its alpha is told of once, at the next validation. What it brought is the change of
validation accuracy since it began to blend: before, the host does not see it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nissa.events import SeedSnapshot, Stage
from nissa.seeds.stages import GROWING

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


class SeedReporter:
    """Reports what happened to the seeds of one environment since the validation before."""

    def __init__(self) -> None:
        self._reported: dict[int, tuple[Stage, float | None]] = {}

    def findings(self, seeds: Sequence[SeedSnapshot], ratios: Mapping[str, float]) -> tuple[SeedFinding, ...]:
        """Return what happened since the call before.

        Args:
            seeds: Those that live, and those that ended since the call before.
            ratios: Their gradient ratios by slot.
        """
        found = [self._finding(seed, ratios) for seed in seeds if self._moved(seed) and seed.stage in SENTENCES]
        self._reported = {seed.ids.span_id: (seed.stage, seed.alpha) for seed in seeds}
        return tuple(sorted(found, key=lambda each: _ORDER[Stage.parse(each.stage)]))

    def _moved(self, seed: SeedSnapshot) -> bool:
        stage, alpha = self._reported.get(seed.ids.span_id, (None, None))
        return seed.stage is not stage or (seed.stage is Stage.BLENDING and seed.alpha != alpha)

    def _finding(self, seed: SeedSnapshot, ratios: Mapping[str, float]) -> SeedFinding:
        brought = seed.accuracy_delta if seed.improvement is None else seed.improvement
        ratio = ratios.get(seed.slot_id) if seed.slot_id is not None and seed.stage in GROWING else None
        stage, _ = self._reported.get(seed.ids.span_id, (None, None))
        changed = seed.previous is not None and seed.stage is not stage
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
