"""Everything is frozen except normalisation layers, as after freezing by a pattern that fits too many names."""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig


class OnlyNormalizationTrains(ProgramContract):
    """All trainable parameters belong to normalisation layers."""

    name = "only_normalization_trains"
    advice = (
        "Unfreeze the layers that shall learn, at least a head: set requires_grad before the optimizer is built. To train "
        "normalisation alone on purpose, switch `diagnostics.contracts` off."
    )
    complete = True
    observations = 3
    source = 'Frankle et al., "Training BatchNorm and Only BatchNorm" (2021), as the effect of an error in freezing'
    twin = "frozen backbones with a head, LoRA, training of biases and normalisation"
    explains = frozenset({"learning_rate_too_low", "sustained_plateau"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        if self._streak.count(bad=seen.facts.only_normalization) < self.observations:
            return None if seen.facts.only_normalization else FINE
        return Symptom(
            seen="Only normalisation layers are trained; all other parameters are frozen",
            certainty=Certainty.POSSIBLE,
            evidence=(f"trained parameters={seen.facts.held}",),
        )
