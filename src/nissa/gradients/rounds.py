"""Rounds of the optimizers of one model, which combine their samples to statistics of the whole model."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nissa.gradients.health import combined

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.gradients.sampling import SamplingSchedule
    from nissa.hub.measurements import GradientHealth


@dataclass(slots=True)
class WholeModel:
    """Samples of one round that have arrived; used by the worker thread only.

    Args:
        name: Name of the model; None if it has none.
        optimizers: Names of its optimizers.
    """

    name: str | None
    optimizers: tuple[str | None, ...]
    number: int = -1
    healths: "dict[str | None, GradientHealth]" = field(default_factory=dict)
    complete: bool = False

    def add(self, round_: "Round", optimizer: str | None, health: "GradientHealth") -> "GradientHealth | None":
        """Add the sample of one optimizer; return the health of the whole model once the round is complete."""
        if round_.number != self.number:
            self.number, self.healths, self.complete = round_.number, {}, False
        self.healths[optimizer] = health
        if len(self.healths) < round_.members:
            return None
        self.complete = True
        return combined(list(self.healths.values()))


@dataclass(frozen=True, slots=True)
class Round:
    """Round that a step belongs to.

    Args:
        whole: Samples of the model.
        number: Number of the round.
        members: Number of optimizers of the model.
    """

    whole: WholeModel
    number: int
    members: int


class Rounds:
    """Division of the steps of several optimizers into rounds: in each, every optimizer makes at most one step.

    All steps of a round are sampled, or none, because the norm of the whole model needs all of them.

    Args:
        name: Name of the model.
        optimizers: Names of its optimizers.
        schedule: Sampling schedule, by the number of the round.
        epoch: Returns the current epoch; a round belongs to one epoch.
    """

    def __init__(
        self,
        name: str | None,
        optimizers: tuple[str, ...],
        schedule: "SamplingSchedule",
        epoch: "Callable[[], object]",
    ) -> None:
        self.schedule = schedule
        self.sampled = False
        self.number = -1
        self._whole = WholeModel(name, optimizers)
        self._members: set[RoundMember] = set()
        self._places: dict[RoundMember, int] = {}
        self._last = -1
        self._cost = 0
        self._epoch_now = epoch
        self._epoch: object = None

    def member(self) -> "RoundMember":
        """Return the sampling schedule of one more optimizer."""
        member = RoundMember(self)
        self._members.add(member)
        return member

    def enter(self, member: "RoundMember") -> None:
        """Begin a step of an optimizer.

        A new round begins if an optimizer steps that is not behind the last one in the order of the epoch's steps: an
        optimizer may step less often than others, and gradients of two iterations must not be combined.
        """
        epoch = self._epoch_now()
        if epoch is not self._epoch:
            self._places.clear()
        place = self._places.setdefault(member, max(self._places.values(), default=-1) + 1)
        if place <= self._last or self.number < 0 or epoch is not self._epoch:
            self._begin(epoch)
        self._last = place

    def passed(self, cost: int) -> None:
        """Record a finished step and its cost in nanoseconds."""
        self._cost += cost

    def leave(self, member: "RoundMember") -> None:
        """Remove an optimizer that is no longer watched."""
        if member in self._members:
            self._members.discard(member)
            self._places.pop(member, None)
            if not self._members:
                self.schedule.close()

    def close(self) -> None:
        """Remove all optimizers."""
        for member in list(self._members):
            self.leave(member)

    def current(self) -> Round:
        """Return the current round."""
        return Round(self._whole, self.number, len(self._members))

    def _begin(self, epoch: object) -> None:
        if self.number >= 0:
            self.schedule.passed(self.number, self._cost, self._epoch)
        self.number += 1
        self._cost, self._epoch = 0, epoch
        self.sampled = self.schedule.wants(self.number)


class RoundMember:
    """Sampling schedule of one of several optimizers: it follows the rounds of the model."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    @property
    def interval(self) -> int:
        """Current interval: its multiples are sampled."""
        return self._rounds.schedule.interval

    def wants(self, step: int) -> bool:  # noqa: ARG002 - the round decides
        """Return whether the round of a step is sampled."""
        self._rounds.enter(self)
        return self._rounds.sampled

    def skipped(self) -> None:
        """Record a step that loss scaling skipped; it takes part in its round."""
        self._rounds.enter(self)

    def current(self) -> Round:
        """Return the current round."""
        return self._rounds.current()

    def passed(self, step: int, cost: int, epoch: object) -> None:  # noqa: ARG002 - the round counts
        """See `nissa.gradients.sampling.SamplingSchedule`."""
        self._rounds.passed(cost)

    def close(self) -> None:
        """See `nissa.gradients.sampling.SamplingSchedule`."""
        self._rounds.leave(self)
