"""Critical sharpness: ``2 / eta_c``, where ``eta_c`` is the smallest learning rate at which the next step raises the loss.

From Kalra et al., "A Scalable Measure of Loss Landscape Curvature for Analyzing the Training Dynamics of LLMs", arXiv
2601.16979. For a quadratic loss with gradient ``g`` and Hessian ``H``, and an update ``-eta * u``, it is
``u'Hu / (g'u)``; for plain gradient descent the curvature along the gradient, at most the largest eigenvalue.
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
"""Width of the interval at which the search ends, over its upper end; the authors' code has the same."""

REACH: Final = 2.0**20
"""The search gives up where the critical learning rate is so many times the actual one, or so small a part of it."""

OUT_OF_BUDGET: Final = "the budget did not suffice to find it"
_FORWARD_AND_BACKWARD: Final = 4  # evaluations take about as long as a gradient and a step


def critical(
    model: "nn.Module",
    optimizer: "Optimizer",
    closure: "Closure",
    *,
    tolerance: float = TOLERANCE,
    start: float = 1.0,
    budget: float | None = None,
) -> Sharpness:
    """Measure the curvature along the optimizer's next update; model and optimizer are left as they were.

    The update is that of a copy of the optimizer, with its state, after a gradient of this loss: one forward and one
    backward pass, and memory for another copy of the weights and the optimizer's state. No hook sees the step.

    Args:
        model: In evaluation mode meanwhile.
        optimizer: With its state as it is; one whose ``step()`` needs a closure has no value.
        closure: Returns the loss of a fixed batch, from which a gradient can be had.
        tolerance: Relative width of the interval in which the critical learning rate is found.
        start: Multiple of the learning rate that is tried first.
        budget: Seconds in which to end; None is no bound.

    Raises:
        ConfigurationError: The closure returns no number, or the model is sharded.
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
    """Measure between the begin and the end of sparing a model."""
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
    """Return what follows from the interval of the critical multiple of the learning rate."""
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
    """Looks for the smallest multiple of an update that raises the loss.

    Args:
        evaluator: Evaluates the loss.
        update: To move along.
        tolerance: Relative width of the interval at which to end.
        start: The multiple that is tried first.
    """

    def __init__(self, evaluator: Evaluator, update: "Update", tolerance: float, start: float) -> None:
        self.complete = True
        self._evaluator = evaluator
        self._update = update
        self._tolerance = tolerance
        self._start = start

    def run(self) -> tuple[float, float]:
        """Return the interval in which it lies; (0, 0) where to first order every step raises the loss.

        Raises:
            NoUpdateError: It is not within reach or budget.
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
        """Return a multiple that does not raise the loss and its double, which does."""
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
        # What is not a number has left the region in which the loss falls.
        return not self._evaluator.loss() <= self._evaluator.base
