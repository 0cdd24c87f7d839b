"""Gradients that are never cleared, so that each step uses the sum of all gradients so far.

The versions of a gradient show that it is kept between steps (see `nissa.gradients.value_probes`), and its values that it is a
sum: the newest gradient is a small part of it.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig

_SHARE = 0.5
"""Energy of the change between two steps, as a share of that of the gradient; 2 for independent gradients."""


class GradientsNeverZeroed(ProgramContract):
    """The gradient of a step contains that of the previous step, again and again."""

    name = "gradients_never_zeroed"
    severity = Severity.ERROR
    advice = "Call optimizer.zero_grad() once per step, before backward() or after step()."
    observations = 3
    of = "comparisons of two consecutive steps"
    source = "UMLAUT and DeepFD benchmarks; PyTorch documentation, `Optimizer.zero_grad`"
    twin = (
        "gradient accumulation over several batches, gradients cleared in place, gradients that code copies into place"
    )
    explains = frozenset(
        {
            "learning_rate_too_high",
            "learning_rate_too_low",
            "divergence",
            "loss_spike",
            "gradient_spike",
            "exploding_gradients",
            "poor_gradient_health",
            "sustained_plateau",
        }
    )

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        share = seen.signals.get("new_share")
        if not seen.facts.kept:
            self._streak.count(bad=False)
            return FINE
        if share is None or math.isnan(share):
            return None
        if self._streak.count(bad=share < _SHARE) < self.observations:
            return None
        return Symptom(
            seen="Gradients are never zeroed: each step adds to those of the previous one",
            certainty=Certainty.CERTAIN,
            value=share,
            limit=_SHARE,
            evidence=(f"steps with kept gradients={seen.facts.kept}",),
        )
