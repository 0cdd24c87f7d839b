"""Loss evaluations with identical random numbers, counted and within a time budget."""

from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import nn

from nissa.errors import ConfigurationError
from nissa.kernels.transfer import to_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard

    Closure = Callable[[], torch.Tensor | float]
    """Returns the loss of a fixed batch, and does nothing else."""


class ClosureModule(nn.Module):
    """Module whose forward pass is a closure, so that ``functional_call`` can replace the weights that it uses.

    Args:
        model: Model whose weights the closure uses.
        closure: Returns the loss; called without arguments.
    """

    def __init__(self, model: nn.Module, closure: "Closure") -> None:
        super().__init__()
        self.model = model
        # In a tuple: a closure that is a module would be registered, and its weights swapped twice and not restored.
        self._closures = (closure,)

    def forward(self) -> torch.Tensor:
        """Return the loss."""
        return self._closures[0]()  # type: ignore[return-value]  # vmap and autograd raise for other results


class Evaluator:
    """Evaluator of a loss.

    Args:
        closure: Returns the loss; called under ``torch.no_grad()``.
        guard: Guard with the random states at which every evaluation begins.
        budget: Time limit in seconds since the guard was created, None for none.

    Attributes:
        base: Loss of the unchanged weights.
        draws: Whether the closure uses random numbers.
        evaluations: Number of evaluations so far.
    """

    def __init__(self, closure: "Closure", guard: "ModelStateGuard", budget: float | None = None) -> None:
        self.closure = closure
        self.evaluations = 0
        self._random_states = guard.random_states
        self.draws = False
        self._begun = guard.begun
        self._budget = budget
        self._longest = 0.0
        self.base = self.loss()
        # Restoring random states takes time, so do it only if the closure uses random numbers.
        self.draws = self._random_states.changed()

    @property
    def seconds(self) -> float:
        """Seconds since the guard was created."""
        return perf_counter() - self._begun

    def affords(self, number: int = 1) -> bool:
        """Whether a number of further evaluations will probably end within the budget."""
        return self._budget is None or self.seconds + number * self._longest <= self._budget

    def loss(self) -> float:
        """Return the loss with the current weights."""
        self.begin()
        started = perf_counter()
        with torch.no_grad():
            found = number(self.closure())
        self.took(perf_counter() - started)
        return found

    def begin(self) -> None:
        """Restore the random states of the first evaluation, and clear the autocast cache, which may hold old weights."""
        if self.draws:
            self._random_states.restore()
        if torch.is_autocast_cache_enabled():
            torch.clear_autocast_cache()

    def extend(self, seconds: float) -> None:
        """Extend the budget by the duration of a failed attempt, so that the measurement can still be made."""
        if self._budget is not None:
            self._budget += seconds

    def took(self, seconds: float, evaluations: int = 1) -> None:
        """Count evaluations and record their duration."""
        self.evaluations += evaluations
        # The first evaluation may include a warm-up, so use the longest of the later ones once available.
        each = seconds / evaluations
        self._longest = each if self.evaluations <= 1 + evaluations else max(self._longest, each)


def number(loss: "torch.Tensor | float") -> float:
    """Return a loss as a number; wait for the device.

    Raises:
        ConfigurationError: The loss is not a single number.
    """
    if not isinstance(loss, torch.Tensor):
        try:
            return float(loss)
        except (TypeError, ValueError):
            raise ConfigurationError(f"The closure must return a loss, not {type(loss).__name__}.") from None
    if loss.numel() != 1:
        raise ConfigurationError(f"The closure must return one number, not a tensor of shape {tuple(loss.shape)}.")
    return float(to_host(loss.detach().reshape(1).to(torch.float64))[0])
