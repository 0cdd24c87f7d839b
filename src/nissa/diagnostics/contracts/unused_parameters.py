"""Parameters of the optimizer that never receive a gradient: unused in the forward pass, or detached from the loss.

Every step is looked at, since a head that is used at every second step may never be used at a sampled one. Where the run has
epochs, parts of two epochs must have passed, because parts of a model may alternate from epoch to epoch.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, some
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig


class UnusedParameters(ProgramContract):
    """Some parameters of the optimizer had no gradient at any step so far, and others had."""

    name = "unused_parameters"
    advice = (
        "Use the parameters named in forward(), look for a detach(), no_grad() or item() behind them, or remove them from the "
        "model and the optimizer."
    )
    complete = True
    observations = 100
    of = "steps"
    source = "PyTorch documentation, `find_unused_parameters`; TrainCheck (Jiang et al., OSDI 2025)"
    twin = "frozen parameters, gradual unfreezing, heads that alternate, experts or heads in a list that are idle"
    explains = frozenset({"stalled_layer"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._epochs: list[int | None] = []

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        facts = seen.facts
        if seen.epoch not in self._epochs:
            self._epochs = [*self._epochs, seen.epoch][-2:]
        if len(facts.ungraded) == facts.held:
            return None
        names = tuple(
            name for name, checks in facts.ungraded if checks >= self.observations and name not in facts.alternatives
        )
        if not names:
            return FINE
        if self._epochs != [None] and len(self._epochs) < 2:  # noqa: PLR2004 - two epochs
            return None
        return Symptom(
            seen=f"{some(names)} never received a gradient".capitalize(),
            certainty=Certainty.LIKELY,
            layers=names,
            value=len(names),
            evidence=(f"steps={facts.checked}",),
        )
