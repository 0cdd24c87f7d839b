"""Sampling interval for a given overhead budget (a share of step time); pure arithmetic."""

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

MOST: Final = 10
"""Sampling is thinned to every ``2**MOST``-th of the configured steps at most."""

_TOO_MUCH, _AIM, _LITTLE = 0.9, 0.75, 0.6
"""Fractions of the budget: sampling is thinned above the first, until the predicted cost is below the second. It is
restored once the predicted cost is below the third (hysteresis)."""

FEWEST_STEPS, MOST_STEPS = 32, 4_096
"""Bounds for the number of steps between two decisions; within them, as many steps as take two seconds."""

_SECONDS: Final = 2e9

_FEW_SAMPLES: Final = 3
"""Samples required before the first decision: the first sample is slow, because it loads and compiles kernels."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Measured costs in nanoseconds.

    Args:
        step: Duration of a step without Nissa.
        plain: Overhead added to every step.
        sample: Further overhead of a sampled step, over all threads.
    """

    step: float
    plain: float
    sample: float

    def share(self, interval: int) -> float:
        """Return the overhead as a share of step time if every ``interval``-th step is sampled."""
        ours = self.plain + self.sample / interval
        return ours / (self.step + ours)


def choose(costs: StepCosts, budget: float, every: int, thinning: int) -> int:
    """Return the next thinning: steps that are multiples of ``every * 2**thinning`` are sampled.

    Sampling is thinned above 90 % of the budget, but restored only below 60 % of it, so that the result does not
    oscillate.

    Args:
        costs: Measured costs.
        budget: Share of step time, 0 to 1.
        every: The configured interval, which is also the shortest one.
        thinning: The current thinning; 0 means none.
    """
    now = costs.share(every << thinning)
    if now > budget * _TOO_MUCH:
        fitting = (each for each in range(thinning, MOST) if costs.share(every << each) <= budget * _AIM)
        return next(fitting, MOST)
    fitting = (each for each in range(thinning) if costs.share(every << each) <= budget * _LITTLE)
    return next(fitting, thinning)


class CostHistory:
    """Recent step and sample costs of one watched optimizer."""

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=64)
        self._plain: deque[int] = deque(maxlen=64)
        self._samples: deque[int] = deque(maxlen=8)

    def add(self, lap: int | None, cost: int, *, sampled: bool) -> None:
        """Add one step.

        Args:
            lap: Nanoseconds since the previous step; None if that time is not a step duration.
            cost: Overhead of this step in nanoseconds.
            sampled: Whether its gradients were measured.
        """
        (self._samples if sampled else self._plain).append(cost)
        if lap is not None:
            self._steps.append(max(1, lap - cost))

    def costs(self, background: float) -> StepCosts | None:
        """Return median costs, or None until enough samples exist.

        Args:
            background: Nanoseconds that Nissa's other threads spend per sample.
        """
        if not self._steps or len(self._samples) < _FEW_SAMPLES:
            return None
        plain = median(self._plain) if self._plain else 0.0
        return StepCosts(median(self._steps), plain, max(0.0, median(self._samples) - plain) + background)

    def round(self) -> int:
        """Return the number of steps until the next decision, a power of two."""
        wanted = _SECONDS / median(self._steps) if self._steps else FEWEST_STEPS
        return 1 << int(min(MOST_STEPS, max(FEWEST_STEPS, wanted))).bit_length() - 1
