"""Critical sharpness: ``2 / eta_c``, where ``eta_c`` is the smallest learning rate at which the next step raises the loss.

From Kalra et al., "A Scalable Measure of Loss Landscape Curvature for Analyzing the Training Dynamics of LLMs", arXiv
2601.16979. For a quadratic loss with gradient ``g`` and Hessian ``H``, and an update ``-eta * u``, it is
``u'Hu / (g'u)``. For plain gradient descent this is the curvature along the gradient, at most the largest eigenvalue.
"""

from math import inf, isfinite
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.sharpness.evaluating import Evaluator
from nissa.diagnostics.sharpness.measured import Sharpness
from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard
from nissa.diagnostics.sharpness.support import require_support
from nissa.diagnostics.sharpness.update import NoUpdateError, next_update

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from nissa.diagnostics.sharpness.evaluating import Closure
    from nissa.diagnostics.sharpness.update import Update

METHOD = "critical"
TOLERANCE: Final = 1 / 16
"""Width over upper end of the interval at which the search stops, as in the code of the authors."""

REACH: Final = 2.0**20
"""Largest ratio of the critical and the actual learning rate, either way, at which the search stops."""

OUT_OF_BUDGET: Final = "the budget did not suffice to find it"
_FORWARD_AND_BACKWARD: Final = 4  # evaluations: the approximate cost of a gradient and a step


def critical(
    model: "nn.Module",
    optimizer: "Optimizer",
    closure: "Closure",
    *,
    tolerance: float = TOLERANCE,
    start: float = 1.0,
    budget: float | None = None,
) -> Sharpness:
    """Measure the curvature along the optimizer's next update; model and optimizer are restored afterwards.

    A copy of the optimizer, with its state, makes the update from the gradient of this loss. This needs one forward and one
    backward pass, and memory for another copy of the weights and of the optimizer's state. The step calls no hooks.

    Args:
        model: Model, in evaluation mode during the measurement.
        optimizer: Optimizer with its current state. The result has no value if its ``step()`` needs a closure.
        closure: Returns the differentiable loss of a fixed batch.
        tolerance: Relative width of the final interval of the critical learning rate.
        start: Multiple of the learning rate to try first.
        budget: Time limit in seconds, None for none.

    Raises:
        ConfigurationError: The closure does not return a single number, or the model is sharded.
    """
    require_support(model, optimizer)
    trained = [each for group in optimizer.param_groups for each in group["params"]]
    with ModelStateGuard(model, trained) as guard:
        evaluator = Evaluator(closure, guard, budget)
        return measure(evaluator, guard, model, optimizer, tolerance=tolerance, start=start)


def measure(
    evaluator: Evaluator,
    guard: ModelStateGuard,
    model: "nn.Module",
    optimizer: "Optimizer",
    *,
    tolerance: float = TOLERANCE,
    start: float = 1.0,
) -> Sharpness:
    """Measure within an active `ModelStateGuard`."""
    first, started = evaluator.evaluations, evaluator.seconds
    try:
        update = _update(model, optimizer, evaluator, guard)
        search = Search(evaluator, update, tolerance, start)
        lower, upper = search.run()
        found = _found(lower, upper, update.learning_rate, complete=search.complete)
    except NoUpdateError as error:
        found = {"reason": str(error), "complete": str(error) != OUT_OF_BUDGET}
    finally:
        guard.put_back()
    return Sharpness(
        method=METHOD,
        **found,  # type: ignore[arg-type]  # its keys are those of the fields
        evaluations=evaluator.evaluations - first + 1,
        seconds=evaluator.seconds - started,
    )


def _update(model: "nn.Module", optimizer: "Optimizer", evaluator: Evaluator, guard: ModelStateGuard) -> "Update":
    if not isfinite(evaluator.base):
        raise NoUpdateError("the loss is not finite")
    if not evaluator.affords(_FORWARD_AND_BACKWARD):
        raise NoUpdateError(OUT_OF_BUDGET)
    return next_update(model, optimizer, evaluator, guard)


def _found(lower: float, upper: float, learning_rate: float, *, complete: bool) -> dict[str, object]:
    """Return the result fields for an interval of the critical multiple of the learning rate."""
    if upper == 0:
        return {"value": inf, "stability_margin": inf, "bounds": (inf, inf)}
    margin = 2 / (lower + upper)
    bounds = 2 / (upper * learning_rate), 2 / (lower * learning_rate)
    return {
        "value": 2 * margin / learning_rate,
        "stability_margin": margin,
        "bounds": bounds,
        "complete": complete,
    }


class Search:
    """Search for the smallest multiple of an update that raises the loss.

    Args:
        evaluator: Evaluator of the loss.
        update: Update whose multiples are tried.
        tolerance: Relative width of the interval at which the search stops.
        start: Multiple to try first.
    """

    def __init__(self, evaluator: Evaluator, update: "Update", tolerance: float, start: float) -> None:
        self.complete = True
        self._evaluator = evaluator
        self._update = update
        self._tolerance = tolerance
        self._start = start

    def run(self) -> tuple[float, float]:
        """Return the interval of the critical multiple; (0, 0) if every step raises the loss to first order.

        Raises:
            NoUpdateError: The multiple is outside the search range, or the budget is exhausted.
        """
        if all(not change.any() for change in self._update.change):
            raise NoUpdateError("the next step does not move the weights")
        if self._update.slope >= 0:
            return 0.0, 0.0
        lower, upper = self._bracket()
        while 1 - lower / upper > self._tolerance:
            if not self._evaluator.affords():
                self.complete = False
                break
            middle = (lower + upper) / 2
            lower, upper = (lower, middle) if self._raises(middle) else (middle, upper)
        return lower, upper

    def _bracket(self) -> tuple[float, float]:
        """Return a multiple that does not raise the loss, and its double, which does."""
        factor = self._start
        if self._raises(factor):
            while self._raises(factor / 2):
                factor /= 2
            return factor / 2, factor
        while not self._raises(2 * factor):
            factor *= 2
        return factor, 2 * factor

    def _raises(self, factor: float) -> bool:
        if not 1 / REACH <= factor <= REACH:
            raise NoUpdateError(f"the critical learning rate is not within {REACH:g} times the actual one")
        if not self._evaluator.affords():
            raise NoUpdateError(OUT_OF_BUDGET)
        self._update.move(factor)
        # Negated, so that a NaN loss counts as raised.
        return not self._evaluator.loss() <= self._evaluator.base
