"""The health of gradients as one number, of the seed document: `GradientHealth` has its formula."""

from typing import TYPE_CHECKING

from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured


class PoorGradientHealth(Rule):
    """A health below its limit."""

    name = "poor_gradient_health"
    advice = "Look at the layers that vanish, explode or are not finite."

    def gradients(self, sample: "GradientsMeasured") -> Judgement:
        """Judge a sample."""
        score = sample.health.score
        if score is None:
            return None
        if score >= self.rules.poor_health:
            return FINE
        health = sample.health
        return Symptom(
            seen=f"Gradient health poor ({score:.2f})",
            layers=tuple(dict.fromkeys((*health.nonfinite, *health.exploding, *health.vanishing))),
            value=score,
            limit=self.rules.poor_health,
        )
