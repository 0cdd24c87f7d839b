"""Comparison of replicas through a store: protocol of one rank in one group.

Each rank writes a summary of its weights under the number of the step. The first rank of the group, the leader, reads the summaries
of a step once all are there, and removes them. Only if they differ, it asks for a list per parameter, and writes the result for the
others. No rank waits for another: a step that a rank does not report is given up once newer ones follow.

Keys, where ``STEP`` is the key of a step:

- ``report/STEP/RANK``: summary, written by each rank, removed by the leader; by the rank itself if the leader does not.
- ``state``: JSON of the leader: steps up to which it is done, wanted lists, results.
- ``detail/STEP/RANK``: list per parameter, only after a mismatch; removed by the leader.
- ``result/NUMBER``: result of a mismatch, the newest few.
- ``left``: number of ranks that have ended; the last one removes what remains.

``Store.get`` waits for a missing key. Only keys that ``check`` has found, and that are not removed meanwhile, are read.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from nissa.distributed.replica_causes import diagnose
from nissa.distributed.replica_data import SameData
from nissa.distributed.replica_reports import Comparison, Detail, Summary

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

__all__ = ["Follower", "Leader", "ReplicaExchange"]

_logger = logging.getLogger("nissa")

FEWEST, MOST = 8, 64
"""Limits of the number of steps that are not compared yet; beyond it the oldest is given up."""

_MOST_DIGESTS: Final = 100_000
"""Number of digests that the lists of these steps may have together; large models keep fewer steps."""

_RESULTS: Final = 4
"""Number of results that stay in the store until the others have read them."""

_DETAIL_SECONDS: Final = 20.0
"""Longest time for which the leader expects the lists of other ranks."""

_DONE: Final = 2**62
"""Step up to which everything is done when the leader takes part no more."""


@dataclass(frozen=True, slots=True)
class _State:
    """Message of the leader to the other ranks.

    Args:
        retired: Step up to which everything is done, but for those that are wanted.
        stride: Its multiples are compared.
        wanted: Steps of which lists are wanted.
        results: Numbers of the results that can be read.
    """

    retired: int = -1
    stride: int = 1
    wanted: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)


class ReplicaExchange(ABC):
    """Protocol state of one rank; used by one thread.

    Args:
        store: Store of all ranks, with a prefix for this group.
        ranks: Global ranks of the group, ascending.
        rank: Rank of this process.
        on_result: Called with each result on the same thread.
    """

    leads = False

    def __init__(
        self, store: "Store", ranks: tuple[int, ...], rank: int, on_result: Callable[[Comparison], None]
    ) -> None:
        self._store, self._ranks, self._rank = store, ranks, rank
        self._on_result = on_result
        # Own reports that are not compared yet, by the key of the step.
        self._mine: dict[int, tuple[Summary, Detail | None]] = {}
        self._state = _State()
        self.closed = False

    @property
    def pending(self) -> bool:
        """Whether `tick` has something to do."""
        return bool(self._mine)

    def publish(self, summary: Summary, detail: Detail | None) -> None:
        """Write the report of a step."""
        key = summary.key
        if self.closed or key % self._state.stride:
            return
        if key <= self._state.retired:  # the others have given it up
            self._on_result(self._result(summary, "incomplete"))
            return
        self._mine[key] = summary, detail
        self._store.set(f"report/{key}/{self._rank}", summary.encode())
        most = MOST if detail is None else max(FEWEST, min(MOST, _MOST_DIGESTS // max(1, len(detail.names))))
        while len(self._mine) > most:
            self._give_up(min(self._mine))

    @abstractmethod
    def tick(self) -> None:
        """Read what other ranks have written, and answer; never waits for one of them."""

    def thin(self) -> None:  # noqa: B027 - only the leader can decide that
        """Compare half as many steps from now on."""

    def close(self) -> None:
        """Remove the keys of this rank; the last rank of the group removes those that remain."""
        for key in list(self._mine):
            self._give_up(key)
        self._leave()
        if self._store.add("left", 1) == len(self._ranks):
            for name in ("left", "state", *(f"result/{number}" for number in self._read_state().results)):
                self._store.delete_key(name)
        self.closed = True

    @abstractmethod
    def _give_up(self, key: int) -> None:
        """Remove the report of a step that was not compared."""

    def _leave(self) -> None:  # noqa: B027 - optional
        """Remove further keys at the end."""

    def _read_state(self) -> _State:
        return _State(**json.loads(self._store.get("state"))) if self._store.check(["state"]) else _State()

    def _result(self, summary: Summary, outcome: str, **more: Any) -> Comparison:
        return Comparison(
            step=summary.step, ranks=self._ranks, at=summary.at, outcome=outcome, leads=self.leads, **more
        )


class Follower(ReplicaExchange):
    """Rank that reports, and learns of mismatches."""

    def __init__(
        self, store: "Store", ranks: tuple[int, ...], rank: int, on_result: Callable[[Comparison], None]
    ) -> None:
        super().__init__(store, ranks, rank, on_result)
        self._sent: set[int] = set()
        self._read = -1

    def tick(self) -> None:
        """Read the state of the leader, send lists that it wants, and forget steps that it is done with."""
        state = self._state = self._read_state()
        for number in state.results:
            if number > self._read and self._store.check([f"result/{number}"]):
                self._read = number
                result = Comparison.decode(bytes.fromhex(self._store.get(f"result/{number}").decode()))
                self._on_result(replace(result, leads=False))
        for key in {*state.wanted} & {*self._mine} - self._sent:
            self._sent.add(key)
            self._store.set(f"detail/{key}/{self._rank}", (self._mine[key][1] or Detail()).encode().hex())
        self._sent &= {*state.wanted}
        for key in [each for each in self._mine if each <= state.retired and each not in state.wanted]:
            self._retire(key)
        self.closed = state.retired == _DONE

    def _retire(self, key: int) -> None:
        """Forget a step. The leader has removed its report, unless it came too late or the leader has none of that step."""
        summary, _ = self._mine.pop(key)
        if self._store.delete_key(f"report/{key}/{self._rank}") and self._state.retired != _DONE:
            self._on_result(self._result(summary, "incomplete"))

    def _give_up(self, key: int) -> None:
        summary, _ = self._mine.pop(key)
        self._store.delete_key(f"report/{key}/{self._rank}")
        self._on_result(self._result(summary, "incomplete"))

    def _leave(self) -> None:
        for key in self._sent:
            self._store.delete_key(f"detail/{key}/{self._rank}")


class Leader(ReplicaExchange):
    """Rank that compares the reports of all.

    Args:
        presumed: Whether only equal weights at the first comparison make the ranks replicas.
        data: Whether each rank should read data of its own.
    """

    leads = True

    def __init__(
        self,
        store: "Store",
        ranks: tuple[int, ...],
        rank: int,
        on_result: Callable[[Comparison], None],
        *,
        presumed: bool,
        data: bool,
    ) -> None:
        super().__init__(store, ranks, rank, on_result)
        # _confirmed: weights were equal once. _proved: a difference was explained by a fault.
        self._presumed, self._confirmed, self._proved = presumed, False, False
        self._same_data = SameData(ranks) if data else None
        self._mismatches = 0
        self._equal_at: int | None = None
        # Time until which the lists of a step are expected, by the key of the step.
        self._wanted: dict[int, float] = {}
        self._results: list[int] = []
        self._last, self._stride = -1, 1
        self._absent: set[int] = set()

    def publish(self, summary: Summary, detail: Detail | None) -> None:
        """Write the report of a step."""
        self._last = max(self._last, summary.key)
        super().publish(summary, detail)

    def thin(self) -> None:
        """Compare half as many steps from now on, on all ranks."""
        self._stride *= 2
        for key in [each for each in self._mine if each % self._stride and each not in self._wanted]:
            self._remove(key)
            del self._mine[key]
        self._retire()

    def tick(self) -> None:
        """Compare the steps that all ranks have reported."""
        # Explain in the order of steps: the first explanation is the beginning of the trouble.
        while self._wanted and self._conclude(min(self._wanted)):
            pass
        # Each rank writes in the order of steps: what is there at a newer step is there at an older one that is looked at later.
        waiting = sorted(self._mine.keys() - self._wanted.keys(), reverse=True)
        ready = [key for key in waiting if self._store.check([f"report/{key}/{rank}" for rank in self._ranks])]
        for key in reversed(ready):
            if not self.closed:
                self._compare(key)

    def _compare(self, key: int) -> None:
        try:
            reports = {rank: Summary.decode(self._store.get(f"report/{key}/{rank}")) for rank in self._ranks}
        except RuntimeError:  # a rank has given the step up since the check; a lost store fails again in the next line
            self._give_up(key)
            return
        self._remove(key)
        summary, detail = self._mine.pop(key)
        skew = _skew(reports)
        weights = {each.weights for each in reports.values()}
        if weights == {None}:
            self._on_result(self._result(summary, "timed", skew=skew))
        elif None in weights:
            self._on_result(self._result(summary, "incomplete", skew=skew))
        elif len(weights) == 1:
            self._equal(summary, skew)
        elif self._presumed and not self._confirmed:
            _logger.debug("Ranks %s have different weights, and nothing states that they are replicas.", self._ranks)
            self._end()
            return
        else:
            self._different(summary, detail, skew)
        self._compare_data(summary, {rank: each.batch for rank, each in reports.items()})
        self._retire()

    def _compare_data(self, summary: Summary, batches: Mapping[int, str | None]) -> None:
        same = self._same_data
        if same is not None and (self._confirmed or not self._presumed) and same.add(summary.step, batches):
            self._announce(self._result(summary, "data", same_data=same.groups, same_steps=same.steps))

    def _equal(self, summary: Summary, skew: float | None) -> None:
        self._equal_at, self._confirmed = summary.step, True
        result = self._result(summary, "equal", skew=skew, equal_at=summary.step)
        recovered, self._mismatches = self._mismatches > 0, 0
        if recovered:
            self._announce(result)
        else:
            self._on_result(result)

    def _different(self, summary: Summary, detail: Detail | None, skew: float | None) -> None:
        self._mismatches += 1
        if not self._presumed or self._proved:  # else they may be no replicas, which the lists tell
            self._on_result(self._result(summary, "different", skew=skew))
        # Weights that have diverged stay different: ask for lists at the first mismatch, the second, the fourth ...
        if detail is not None and not self._mismatches & (self._mismatches - 1):
            self._mine[summary.key] = summary, detail
            self._wanted[summary.key] = monotonic() + _DETAIL_SECONDS
            self._store.set(f"detail/{summary.key}/{self._rank}", detail.encode().hex())

    def _conclude(self, key: int) -> bool:
        """Explain a mismatch once all lists are there, or with those that are there after a while; return whether it was."""
        names = {rank: f"detail/{key}/{rank}" for rank in self._ranks}
        if not self._store.check([*names.values()]):
            if monotonic() < self._wanted[key]:
                return False
            names = {rank: name for rank, name in names.items() if self._store.check([name])}
        encoded = {rank: self._store.get(name).decode() for rank, name in names.items()}
        details = {rank: Detail.decode(bytes.fromhex(each)) for rank, each in encoded.items()}
        self._delete(f"detail/{key}/{rank}" for rank in self._ranks)
        summary, _ = self._mine.pop(key)
        del self._wanted[key]
        self._explain(summary, {rank: each for rank, each in details.items() if each.names})
        self._retire()
        return True

    def _explain(self, summary: Summary, details: Mapping[int, Detail]) -> None:
        if len(details) < 2:  # noqa: PLR2004 - a difference needs two
            self._on_result(self._result(summary, "incomplete"))
            return
        found = diagnose(details, equal_at=self._equal_at, presumed=self._presumed)
        if found is None:
            self._end()
            return
        self._proved = True
        explained = {name: getattr(found, name) for name in ("differing", "layers", "evidence")}
        self._announce(
            self._result(
                summary,
                "explained",
                cause=found.cause.value,
                equal_at=self._equal_at,
                presumed=self._presumed,
                **explained,
            )
        )

    def _announce(self, result: Comparison) -> None:
        """Write a result for the other ranks."""
        number = self._results[-1] + 1 if self._results else 0
        self._store.set(f"result/{number}", result.encode().hex())
        self._results.append(number)
        while len(self._results) > _RESULTS:
            self._store.delete_key(f"result/{self._results.pop(0)}")
        self._write()
        self._on_result(result)

    def _give_up(self, key: int) -> None:
        """Give up a step that not all ranks have reported, or whose lists not all have sent."""
        if key in self._wanted:
            self._wanted[key] = 0.0
            self._conclude(key)
            return
        absent = tuple(rank for rank in self._ranks if not self._store.check([f"report/{key}/{rank}"]))
        self._remove(key)
        summary, _ = self._mine.pop(key)
        if absent and not self._absent.issuperset(absent):
            self._absent |= {*absent}
            _logger.info(
                "Weights of step %d are not compared: %s did not report it. Further ones are only counted.",
                summary.step,
                ", ".join(f"rank {rank}" for rank in absent),
            )
        self._on_result(self._result(summary, "incomplete", absent=absent))
        self._retire()

    def _end(self) -> None:
        """Take part no more, and tell the other ranks."""
        for key in self._mine:
            self._remove(key)
        self._mine, self._wanted, self.closed = {}, {}, True
        self._write()

    def _leave(self) -> None:
        self._end()

    def _retire(self) -> None:
        """Write up to which step everything is done."""
        if not self.closed:
            self._write()

    def _write(self) -> None:
        waiting = [key for key in self._mine if key not in self._wanted]
        done = _DONE if self.closed else min(waiting) - 1 if waiting else self._last
        retired = max(self._state.retired, done)
        state = _State(retired, self._stride, [*self._wanted], [*self._results])
        if state != self._state or not self._store.check(["state"]):
            self._state = state
            self._store.set("state", json.dumps(asdict(state)))

    def _remove(self, key: int) -> None:
        self._delete(f"{kind}/{key}/{rank}" for kind in ("report", "detail") for rank in self._ranks)

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._store.delete_key(key)


def _skew(reports: Mapping[int, Summary]) -> float | None:
    """Return the seconds between the first and the last rank: at the beginning of the backward pass, or else at the step."""
    began = [each.at - each.behind * 1e9 for each in reports.values() if each.behind is not None]
    times = began if len(began) == len(reports) else [float(each.at) for each in reports.values()]
    return (max(times) - min(times)) / 1e9
