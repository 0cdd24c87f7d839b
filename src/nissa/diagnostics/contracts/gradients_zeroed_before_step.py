"""Gradients that are missing or zero whenever the optimizer steps: ``zero_grad()`` between ``backward()`` and ``step()``.

``backward()`` that is never called, and a loss that is detached from the parameters, have the same effect.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract
from nissa.diagnostics.contracts.zero_gradients import ZeroGradients
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock, StepBlock


class GradientsZeroedBeforeStep(Contract):
    """No parameter of the optimizer ever had a gradient at a step, or all gradients were zero from the beginning."""

    name = "gradients_zeroed_before_step"
    severity = Severity.ERROR
    advice = (
        "Order the calls: zero_grad(), backward(), step(). If the order is right, call backward() on a loss that depends on the "
        "parameters: look for detach(), item(), no_grad() or argmax() on the way."
    )
    observations = 3
    of = "sampled or observed steps from the beginning"
    source = "UMLAUT and DeepFD benchmarks; PyTorch documentation, `Optimizer.zero_grad`"
    twin = "losses that reach zero, such as a hinge loss; optimizers whose turn has not come"
    explains = frozenset(
        {
            "vanishing_gradients",
            "dead_units",
            "poor_gradient_health",
            "stalled_layer",
            "learning_rate_too_low",
            "sustained_plateau",
        }
    )

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._zeros = ZeroGradients()

    def steps(self, block: "StepBlock") -> "Sequence[Judgement]":
        """Judge whether any parameter ever had a gradient."""
        self._zeros.steps(block)
        judged: list[Judgement] = [None] * len(block)
        for row, facts in enumerate(block.programs):
            if facts is not None and facts.complete and facts.held:
                none = len(facts.ungraded) == facts.held
                judged[row] = (
                    (_missing(facts.checked) if facts.checked >= self.observations else None) if none else FINE
                )
        return judged

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge whether any gradient ever was nonzero."""
        counts = self._zeros.samples(block)
        if self._zeros.half:  # which underflow explains
            return [None] * len(block)
        return [FINE if not count else _zero(count) if count >= self.observations else None for count in counts]


def _missing(steps: int) -> Symptom:
    return Symptom(
        seen=f"No parameter had a gradient at any of {steps} steps",
        certainty=Certainty.CERTAIN,
        evidence=("gradients=none",),
        value=steps,
    )


def _zero(samples: int) -> Symptom:
    return Symptom(
        seen=f"All gradients were exactly zero in all {samples} samples",
        certainty=Certainty.LIKELY,
        evidence=("gradients=0",),
        value=samples,
    )
