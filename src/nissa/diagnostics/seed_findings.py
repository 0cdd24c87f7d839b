"""Seed findings: changes of seeds between two validations, most important first.

A change of stage or alpha is reported once, at the next validation. The effect of a seed is the change of validation
accuracy since it began to blend, because before that the seed does not contribute to the host's output.
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
"""Sentences by stage, most important first; other stages are not reported."""

POINTS: Final = ", {points} points"
"""Suffix if the seed's change of validation accuracy is known."""
RATIO: Final = ", gradient ratio {ratio}"
"""Suffix if the gradients of a growing seed and of its host were measured."""

MOST_NAME: Final = 32
_ORDER: Final = {stage: place for place, stage in enumerate(SENTENCES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFinding:
    """Change of one seed since the previous validation.

    Args:
        stage: Current stage, lower case.
        previous: Previous stage, None if the stage did not change.
        alpha: Weight of the seed's output, 0 to 1.
        accuracy_delta: Effect of the seed as a fraction: the improvement reported with its end, else the change of
            validation accuracy since it began to blend.
        gradient_ratio: Root mean square of the seed's gradients over that of its host's, while it grows.
        sentence: Short text with all of it.
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
    """Reporter of changes of one environment's seeds between validations."""

    def __init__(self) -> None:
        self._reported: dict[int, tuple[Stage, float | None]] = {}

    def findings(self, seeds: Sequence[SeedSnapshot], ratios: Mapping[str, float]) -> tuple[SeedFinding, ...]:
        """Return the changes since the previous call.

        Args:
            seeds: Live seeds, and seeds that ended since the previous call.
            ratios: Gradient ratios by slot.
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
    sentence = template.format(seed=who, alpha=alpha)
    sentence += "" if brought is None else POINTS.format(points=figure(brought * 100, "+.1f"))
    return sentence + ("" if ratio is None else RATIO.format(ratio=figure(ratio, ".2f")))


_LARGE: Final = 1e6
_TINY: Final = 5e-4


def figure(value: float, form: str = ".3f") -> str:
    """Return a number in a format; large and tiny ones in powers of ten: ``2345678.9`` becomes ``2.35e+06``."""
    tiny = form == ".3f" and 0 < abs(value) < _TINY
    return format(value, form if abs(value) < _LARGE and not tiny else ".3g")


def short(text: str, most: int) -> str:
    """Return text on one line, without the sentence separator, cut to a maximum length."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
