"""Parameters that were replaced in the model after the optimizer was built.

``load_state_dict(assign=True)``, ``copy.deepcopy(model)``, ``to()`` on some devices and assignments to attributes make new
parameters. The optimizer goes on to hold the old ones, which never receive a gradient.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak, some
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig


class ReplacedParameters(ProgramContract):
    """Parameters of the model receive gradients and rest, while the optimizer holds others of the same shape without any."""

    name = "replaced_parameters"
    severity = Severity.ERROR
    advice = (
        "Build the optimizer after the parameters were replaced (by load_state_dict(assign=True), a copy, or an assignment), "
        "and watch() that one."
    )
    complete = True
    observations = 2
    source = "TrainCheck (Jiang et al., OSDI 2025); documentation of `torch.nn.Module.load_state_dict(assign=True)`"
    twin = "an optimizer that holds the parameters of several models, or of a loss"
    explains = frozenset({"unoptimized_parameters", "learning_rate_too_low", "sustained_plateau", "stalled_layer"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        names = seen.facts.replaced
        rests = seen.signals.get("unheld_changed") == 0
        if self._streak.count(bad=bool(names) and rests) < self.observations:
            return None if names else FINE
        return Symptom(
            seen=f"The optimizer holds former versions of {some(names)}",
            certainty=Certainty.CERTAIN,
            layers=names,
            value=len(names),
            evidence=(f"observations={self._streak.length}", "gradient of the held ones=none"),
        )
