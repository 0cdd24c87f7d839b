"""Sampling schedules: a fixed interval, or an interval that adapts to an overhead budget and is equal on all ranks.

Between decisions each rank computes the interval that its budget allows. All ranks then switch to the largest of these
at an agreed step. `nissa.distributed.consensus` implements the agreement.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, Protocol

from nissa.distributed.consensus import Consensus, consensus
from nissa.gradients.overhead import FEWEST_STEPS, MOST_STEPS, CostHistory, StepCosts, ThreadCpuUsage

if TYPE_CHECKING:
    from nissa.hub.error_boundary import ErrorBoundary

_logger = logging.getLogger("nissa")
_runs = count()

MOST: Final = 10
"""Sampling is thinned to every ``2**MOST``-th of the configured steps at most."""

_TOO_MUCH, _AIM, _LITTLE = 0.9, 0.75, 0.6
"""Fractions of the budget: sampling is thinned above the first, until the predicted cost is below the second. It is
restored once the predicted cost is below the third (hysteresis)."""

_PATIENCE: Final = 5
"""Number of consecutive decisions without agreement before a warning is logged."""


class SamplingSchedule(Protocol):
    """Sampling schedule of one watched optimizer."""

    @property
    def interval(self) -> int:
        """Current interval: its multiples are sampled; 0 disables sampling."""

    def wants(self, step: int) -> bool:
        """Return whether a step is sampled; called once per step, in order."""

    def passed(self, step: int, cost: int, epoch: object) -> None:
        """Record a finished step, its cost in nanoseconds and its epoch."""

    def close(self) -> None:
        """Release the resources of the schedule."""


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """Schedule with the configured interval.

    Args:
        interval: Its multiples are sampled; 0 disables sampling.
    """

    interval: int

    def wants(self, step: int) -> bool:
        """Return whether a step is sampled; depends on its number alone, so that all ranks agree."""
        return self.interval > 0 and step % self.interval == 0

    def passed(self, step: int, cost: int, epoch: object) -> None:
        """See `SamplingSchedule`."""

    def close(self) -> None:
        """See `SamplingSchedule`."""


@dataclass(slots=True, kw_only=True)
class OverheadBudget:
    """Overhead budget of a run, shared by its watched optimizers.

    Args:
        share: Allowed share of step time, 0 to 1; divided equally among the watched optimizers.
        background: CPU usage of Nissa's other threads.
        error_boundary: Records faults.
        now: A monotonic clock in nanoseconds.
    """

    share: float
    background: "ThreadCpuUsage"
    error_boundary: "ErrorBoundary"
    now: Callable[[], int] = perf_counter_ns
    run: int = field(default_factory=lambda: next(_runs))
    schedules: int = 0
    open: int = 0

    def schedule(self, every: int, name: str | None, first: int = 0) -> "AdaptiveInterval":
        """Return the schedule of one more watched optimizer, whose first step has the number ``first``."""
        self.schedules += 1
        self.open += 1
        return AdaptiveInterval(self, every, name, f"{self.run}.{self.schedules}", first)

    def part(self) -> float:
        """Return the share of step time for one optimizer."""
        return self.share / max(1, self.open)

    def fault(self, error: Exception) -> None:
        """Record a fault of the store that ranks use to reach consensus."""
        self.error_boundary.fault("overhead budget", error)


class AdaptiveInterval:
    """Schedule that keeps the overhead within a budget: samples every ``2**thinning``-th of the configured steps.

    Args:
        budget: The budget of the run.
        every: The configured interval.
        name: Name of the watch, used in log messages.
        title: Unique key of the schedule, equal on all ranks.
        first: Number of the first step.
    """

    def __init__(self, budget: OverheadBudget, every: int, name: str | None, title: str, first: int = 0) -> None:
        self.thinning = 0
        self._budget = budget
        self._every = every
        self._name = name
        self._title = title
        self._consensus: Consensus | None = None
        self._history = CostHistory()
        self._round_number = 0
        self._round_length = FEWEST_STEPS
        self._next = first + FEWEST_STEPS
        self._last: tuple[int, object] | None = None
        self._costs: StepCosts | None = None
        self._missed = 0
        self._limit_logged = False

    @property
    def interval(self) -> int:
        """Current interval: its multiples are sampled."""
        return self._every << self.thinning

    def wants(self, step: int) -> bool:
        """Return whether a step is sampled."""
        if self._consensus is None:
            self._consensus = consensus(self._title, self._budget.fault)
        if step >= self._next:
            self._decide(step, self._consensus)
        return step % self.interval == 0

    def passed(self, step: int, cost: int, epoch: object) -> None:
        """See `SamplingSchedule`."""
        at, last = self._budget.now(), self._last
        self._last = at, epoch
        sampled = step % self.interval == 0
        if sampled:
            self._budget.background.sampled()
        # Time across an epoch boundary may include validation, so it is not a step duration.
        self._history.add(at - last[0] if last and last[1] is epoch else None, cost, sampled=sampled)
        if step == self._next - self._round_length // 4 and self._consensus is not None:
            self._consensus.propose(self._round_number, self._proposal())

    def close(self) -> None:
        """See `SamplingSchedule`."""
        self._budget.open -= 1
        if self._consensus is not None:
            self._consensus.close()

    def _proposal(self) -> tuple[int, int]:
        """Return the thinning that this rank proposes, and the length of the next round in steps."""
        self._costs = costs = self._history.costs(self._budget.background.cost())
        if costs is None:
            return self.thinning, self._round_length
        return choose(costs, self._budget.part(), self._every, self.thinning), self._history.round()

    def _decide(self, step: int, found: Consensus) -> None:
        granted = found.decision(self._round_number)
        self._round_number += 1
        if granted is None:  # the same on all ranks
            self._missing()
            self._round_length = min(2 * self._round_length, MOST_STEPS)  # a slow rank may need a longer round
        else:
            self._missed = 0
            before = self.interval
            self.thinning, self._round_length = granted
            if self.interval != before:
                self._log_change(before, step)
            self._log_limit()
        self._next += self._round_length

    def _log_change(self, before: int, step: int) -> None:
        of = "" if self._name is None else f" of {self._name!r}"
        _logger.warning(
            "Gradients%s are sampled on every %s step from step %d on instead of every %s: overhead_budget allows %.3g %% of "
            "step time%s.",
            of,
            _th(self.interval),
            step,
            _th(before),
            100 * self._budget.part(),
            ""
            if self._costs is None
            else f"; the previous interval takes {self._costs.share(before):.2%} on this rank",
        )

    def _log_limit(self) -> None:
        costs = self._costs
        if self.thinning < MOST or self._limit_logged or costs is None:
            return
        if costs.share(self.interval) > self._budget.part():
            self._limit_logged = True
            _logger.warning(
                "overhead_budget cannot be kept: with every %s step sampled, watch() still takes %.2f %% of step time.",
                _th(self.interval),
                100 * costs.share(self.interval),
            )

    def _missing(self) -> None:
        self._missed += 1
        if self._missed == _PATIENCE:
            _logger.warning(
                "overhead_budget has no effect, because the ranks do not agree on an interval. All ranks must watch() the "
                "same optimizers in the same order, with a budget."
            )


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


def _th(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
