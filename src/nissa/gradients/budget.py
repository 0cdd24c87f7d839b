"""How often gradients may be measured for a share of step time; arithmetic alone."""

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

MOST: Final = 10
"""Sampling is thinned to every ``2**MOST``-th of the configured steps at most."""

_TOO_MUCH, _AIM, _LITTLE = 0.9, 0.75, 0.6
"""Parts of the budget: above the first sampling is thinned to below the second, below the third there may be more."""

FEWEST_STEPS, MOST_STEPS = 32, 4_096
"""Steps between two decisions; within these bounds so many as take two seconds."""

_SECONDS: Final = 2e9

_FEW_SAMPLES: Final = 3
"""Before there are as many nothing is decided: the first is slow, since whatever it needs is loaded and made."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What was measured, in nanoseconds.

    Args:
        step: A step without us.
        plain: What we add to each.
        sample: What a sampled step adds to that, on all threads.
    """

    step: float
    plain: float
    sample: float

    def share(self, interval: int) -> float:
        """Return what we take of step time where every ``interval``-th step is sampled."""
        ours = self.plain + self.sample / interval
        return ours / (self.step + ours)


def choose(costs: StepCosts, budget: float, every: int, thinning: int) -> int:
    """Return the thinning to go on with: steps that ``every * 2**thinning`` divides are sampled.

    Between thinning more and thinning less lies a factor of more than a half, so that it does not swing.

    Args:
        costs: What was measured.
        budget: Share of step time, 0 to 1.
        every: The configured interval, below which it never goes.
        thinning: The present one, 0 for none.
    """
    now = costs.share(every << thinning)
    if now > budget * _TOO_MUCH:
        fitting = (each for each in range(thinning, MOST) if costs.share(every << each) <= budget * _AIM)
        return next(fitting, MOST)
    fitting = (each for each in range(thinning) if costs.share(every << each) <= budget * _LITTLE)
    return next(fitting, thinning)


class CostHistory:
    """The newest costs of one watched optimizer."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=64)
        self._plain: deque[int] = deque(maxlen=64)
        self._samples: deque[int] = deque(maxlen=8)

    def add(self, lap: int | None, cost: int, *, sampled: bool) -> None:
        """Add one step.

        Args:
            lap: Time since the one before, in nanoseconds; None where that says nothing.
            cost: What we took of it.
            sampled: Whether its gradients were measured.
        """
        (self._samples if sampled else self._plain).append(cost)
        if lap is not None:
            self._steps.append(max(1, lap - cost))

    def costs(self, background: float) -> StepCosts | None:
        """Return what is typical; None as long as that is not known.

        Args:
            background: What other threads of ours take for each sample, in nanoseconds.
        """
        if not self._steps or len(self._samples) < _FEW_SAMPLES:
            return None
        plain = median(self._plain) if self._plain else 0.0
        return StepCosts(median(self._steps), plain, max(0.0, median(self._samples) - plain) + background)

    def round(self) -> int:
        """Return how many steps should pass between two decisions, a power of two."""
        wanted = _SECONDS / median(self._steps) if self._steps else FEWEST_STEPS
        return 1 << int(min(MOST_STEPS, max(FEWEST_STEPS, wanted))).bit_length() - 1
