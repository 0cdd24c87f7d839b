"""Steps in evaluation mode: ``train()`` was never called, or not again after a validation.

Dropout is off and batch normalisation neither uses nor updates statistics of the batch. A model without such layers does not
depend on the mode.
"""

from nissa.diagnostics.contracts.contract import Observation, ProgramContract
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom


class EvaluationModeInTraining(ProgramContract):
    """All dropout and batch normalisation layers, and the model itself, are in evaluation mode at many steps in a row."""

    name = "evaluation_mode_in_training"
    advice = (
        "Call model.train() before the training loop, and again after each validation. Call it for the model, and then eval() "
        "for the layers that shall stay as they are."
    )
    observations = 20
    of = "consecutive steps"
    source = "PyTorch documentation, `Module.train`; TrainCheck (Jiang et al., OSDI 2025)"
    twin = "batch normalisation in evaluation mode in a model in training mode, backbones and models that load in evaluation mode"
    explains = frozenset({"overfitting"})

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        facts = seen.facts
        if not facts.evaluating or not facts.modal:
            return FINE
        if facts.evaluating < self.observations:
            return None
        before = "not again after an earlier call of eval()" if facts.trained else "never"
        return Symptom(
            seen=f"The model trains in evaluation mode: train() was called {before}",
            certainty=Certainty.LIKELY if facts.trained else Certainty.POSSIBLE,
            layers=facts.modal,
            value=facts.evaluating,
            limit=self.observations,
        )
