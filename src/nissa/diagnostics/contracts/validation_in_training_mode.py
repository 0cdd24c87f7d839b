"""Validations in training mode: ``eval()`` was not called.

Dropout is active, and batch normalisation uses the statistics of validation batches, and learns them. Only forward passes
without gradients count, which those of a validation usually are.
"""

from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.snapshot import EpochSnapshot


class ValidationInTrainingMode(Contract):
    """Between the last step and a validation, all forward passes without gradients were in training mode."""

    name = "validation_in_training_mode"
    advice = "Call model.eval() before the validation and model.train() after it."
    observations = 2
    of = "validations"
    source = "PyTorch documentation, `Module.eval`; TrainCheck (Jiang et al., OSDI 2025)"
    twin = (
        "models without dropout and batch normalisation, validations of an averaged copy, recalibration before eval()"
    )
    forward = True

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._streak = Streak()

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        modes = snapshot.forward_modes
        if modes is None or not (modes.training or modes.evaluation):
            return None
        bad = modes.training > 0 and not modes.evaluation and bool(modes.modal)
        if self._streak.count(bad=bad) < self.observations:
            return None if bad else FINE
        return Symptom(
            seen="Validations run in training mode: eval() is not called",
            certainty=Certainty.LIKELY,
            layers=modes.modal,
            value=modes.training,
            evidence=(f"forward passes in training mode={modes.training}", "in evaluation mode=0"),
        )
