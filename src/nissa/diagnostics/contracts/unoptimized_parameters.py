"""Trainable parameters that no optimizer holds.

They receive gradients, which is paid for, and never change. A parameter that another optimizer trains is recognised by its
changes, even if that optimizer is not watched.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak, some
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig


class UnoptimizedParameters(ProgramContract):
    """Parameters receive gradients at each observation, no watched optimizer holds them, and nothing changes them."""

    name = "unoptimized_parameters"
    advice = (
        "Pass the parameters named to the optimizer, for example with add_param_group(), or freeze them with "
        "requires_grad_(False), which saves their gradients."
    )
    complete = True
    observations = 3
    source = "TrainCheck (Jiang et al., OSDI 2025), parameters that are missing in the optimizer"
    twin = "frozen backbones (`requires_grad_(False)` or `no_grad()`), other optimizers, weight tying, target networks"
    explains = frozenset({"learning_rate_too_low", "sustained_plateau"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        names = tuple(name for name in seen.facts.unheld if name not in seen.facts.replaced)
        rests = seen.signals.get("unheld_changed") == 0
        if self._streak.count(bad=bool(names) and rests) < self.observations:
            return None if names else FINE
        return Symptom(
            seen=f"No optimizer trains {some(names, 'trainable parameter')}",
            layers=names,
            value=len(names),
            evidence=(f"observations={self._streak.length}", "gradient=present", "change=none"),
        )
