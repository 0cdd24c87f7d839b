"""Evaluations of one loss, all with the same random numbers, counted and within a budget."""

from time import perf_counter
from typing import TYPE_CHECKING

import torch

from nissa.diagnostics.to_host import to_host
from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.diagnostics.sharpness.model_state_guard import ModelStateGuard

    Closure = Callable[[], torch.Tensor | float]
    """Returns the loss of a fixed batch, and does nothing else."""


class Evaluator:
    """Evaluates a loss.

    Args:
        closure: Returns it; called where no gradients are recorded.
        guard: What keeps the random states that every evaluation begins with.
        budget: Seconds from when the sparing began; None is no bound.
    """

    def __init__(self, closure: "Closure", guard: "ModelStateGuard", budget: float | None = None) -> None:
        self.closure = closure
        self.evaluations = 0
        self._random_states = guard.random_states
        self._draws = False
        self._begun = guard.begun
        self._budget = budget
        self._longest = 0.0
        self.base = self.loss()
        self._draws = self._random_states.changed()

    @property
    def seconds(self) -> float:
        """How long all has taken so far."""
        return perf_counter() - self._begun

    def affords(self, number: int = 1) -> bool:
        """Whether so many further evaluations probably end within the budget."""
        return self._budget is None or self.seconds + number * self._longest <= self._budget

    def loss(self) -> float:
        """Return the loss with the weights as they are."""
        self.begin()
        started = perf_counter()
        with torch.no_grad():
            found = number(self.closure())
        self.took(perf_counter() - started)
        return found

    def begin(self) -> None:
        """Give what comes the random numbers that the first evaluation had, and no stale weights."""
        if self._draws:
            self._random_states.restore()
        if torch.is_autocast_cache_enabled():
            torch.clear_autocast_cache()

    def took(self, seconds: float, evaluations: int = 1) -> None:
        """Count evaluations."""
        self.evaluations += evaluations
        # The first may have had to warm up: what counts is the longest of the others, where there are any.
        each = seconds / evaluations
        self._longest = each if self.evaluations <= 1 + evaluations else max(self._longest, each)


def number(loss: "torch.Tensor | float") -> float:
    """Return a loss as a number, waiting for it.

    Raises:
        ConfigurationError: It is not one number.
    """
    if not isinstance(loss, torch.Tensor):
        try:
            return float(loss)
        except (TypeError, ValueError):
            raise ConfigurationError(f"The closure must return a loss, not {type(loss).__name__}.") from None
    if loss.numel() != 1:
        raise ConfigurationError(f"The closure must return one number, not a tensor of shape {tuple(loss.shape)}.")
    return float(to_host(loss.detach().reshape(1).to(torch.float64))[0])
