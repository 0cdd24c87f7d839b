"""Periodic measurement of sharpness, within a time budget."""

import logging
from typing import TYPE_CHECKING

from nissa.diagnostics.sharpness import average, critical_sharpness
from nissa.diagnostics.sharpness.compiled import CompiledEvaluation
from nissa.diagnostics.sharpness.directions import Directions
from nissa.diagnostics.sharpness.evaluating import Evaluator
from nissa.diagnostics.sharpness.measured import Sharpness, SharpnessMeasured
from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard
from nissa.diagnostics.sharpness.perturbation import Perturbation
from nissa.diagnostics.sharpness.support import unsupported

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from nissa.config.sharpness import SharpnessConfig
    from nissa.diagnostics.sharpness.evaluating import Closure

_logger = logging.getLogger("nissa")


class SharpnessProbe:
    """Probe that measures the sharpness of a model in every n-th epoch.

    Args:
        config: Methods, interval and time budget.
        seed: Seed of the random directions, which do not use the global random state.
    """

    def __init__(self, config: "SharpnessConfig", seed: int = 0) -> None:
        self._config = config
        self._directions = Directions(seed)
        self._compiled = CompiledEvaluation() if config.compile else None
        self._start = 1.0
        self._unnumbered = 0
        self._logged: set[str] = set()

    def due(self, epoch: int | None) -> bool:
        """Whether to measure in this epoch; without an epoch number, in every n-th call."""
        if not self._config.enabled:
            return False
        if epoch is None:
            epoch, self._unnumbered = self._unnumbered, self._unnumbered + 1
        return epoch % self._config.every_n_epochs == 0

    def measure(
        self, model: "nn.Module", optimizer: "Optimizer | None", closure: "Closure"
    ) -> SharpnessMeasured | None:
        """Measure the sharpness and restore model and optimizer; return None for an unsupported model.

        Args:
            model: Model, in evaluation mode during the measurement.
            optimizer: Optimizer whose next update ``critical`` measures; without one this method is skipped.
            closure: Returns the differentiable loss of a fixed batch.

        Raises:
            ConfigurationError: The closure does not return a single number.
            Exception: Any exception of the closure, after the state was restored.
        """
        if reason := unsupported(model, optimizer):
            self._warn("model", f"Sharpness is not measured for this model: {reason}.")
            return None
        trained = [] if optimizer is None else [each for group in optimizer.param_groups for each in group["params"]]
        with ModelStateGuard(model, trained) as guard:
            evaluator = Evaluator(closure, guard, self._config.budget_milliseconds / 1000)
            found = [
                self._critical(evaluator, guard, model, optimizer)
                if method == critical_sharpness.METHOD
                else self._average(evaluator, guard, model)
                for method in self._config.methods
                if method != critical_sharpness.METHOD or optimizer is not None
            ]
        for each in found:
            if each.reason is not None:
                self._warn(each.method, f"Sharpness ({each.method}) could not be measured: {each.reason}. Logged once.")
        return SharpnessMeasured(methods=tuple(found), evaluations=evaluator.evaluations, seconds=evaluator.seconds)

    def _critical(
        self, evaluator: Evaluator, guard: ModelStateGuard, model: "nn.Module", optimizer: "Optimizer | None"
    ) -> Sharpness:
        assert optimizer is not None  # noqa: S101 - checked by the caller
        found = critical_sharpness.measure(evaluator, guard, model, optimizer, start=self._start)
        if found.stability_margin is not None and 0 < found.stability_margin < critical_sharpness.REACH:
            # Start the next search at this result, which saves most of its evaluations.
            self._start = 1 / found.stability_margin
        return found

    def _average(self, evaluator: Evaluator, guard: ModelStateGuard, model: "nn.Module") -> Sharpness:
        samples, scale = self._config.samples, self._config.scale
        perturbation = Perturbation.of(model, guard, scale, self._directions, samples)
        return average.measure(evaluator, perturbation, scale, self._compiled)

    def _warn(self, subject: str, message: str) -> None:
        """Log the first problem of each kind; later ones are in the results."""
        if subject not in self._logged:
            self._logged.add(subject)
            _logger.warning("%s", message)
