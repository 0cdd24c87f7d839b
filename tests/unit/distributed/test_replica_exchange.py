"""Protocol of replicas in a store in memory: who writes what, who waits for whom (nobody), and what is left."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from torch import distributed

from nissa.distributed.replica_exchange import FEWEST, MOST, Follower, Leader, ReplicaExchange
from nissa.distributed.replica_reports import Comparison, Detail, Summary, summarised

RANKS = (0, 2, 5)
STORE: Any = distributed.HashStore  # type: ignore[attr-defined]  # torch does not mark it as exported


@dataclass
class Group:
    """All ranks of a group in one process."""

    presumed: bool = False
    data: bool = True
    store: Any = field(default_factory=STORE)
    results: dict[int, list[Comparison]] = field(default_factory=lambda: {rank: [] for rank in RANKS})

    def __post_init__(self) -> None:
        """Open the exchange of each rank."""
        first, *others = RANKS
        take = {rank: self.results[rank].append for rank in RANKS}
        self.exchanges: dict[int, ReplicaExchange] = {
            first: Leader(self.store, RANKS, first, take[first], presumed=self.presumed, data=self.data)
        }
        self.exchanges |= {rank: Follower(self.store, RANKS, rank, take[rank]) for rank in others}

    def publish(self, key: int, weights: dict[int, str], batches: dict[int, str] | None = None) -> None:
        for rank, digest in weights.items():
            detail = Detail(
                names=["a\tfloat32\t(2,)", "b\tfloat32\t(2,)"], digests=["same", digest], norms=[1.0, 2.0], wrapped=True
            )
            summary = Summary(
                key=key,
                step=key,
                at=1_000_000_000 * key + rank * 1_000_000,
                weights=summarised(detail.names, detail.digests),
                batch=None if batches is None else batches[rank],
            )
            self.exchanges[rank].publish(summary, detail)

    def tick(self, times: int = 3) -> None:
        for _ in range(times):
            for exchange in self.exchanges.values():
                exchange.tick()

    def outcomes(self, rank: int = 0) -> list[tuple[int, str]]:
        return [(each.step, each.outcome) for each in self.results[rank]]

    def close(self) -> None:
        for exchange in self.exchanges.values():
            exchange.close()


@pytest.fixture
def group() -> Iterator[Group]:
    found = Group()
    yield found
    found.close()
    assert found.store.num_keys() == 0


def alike(digest: str = "x") -> dict[int, str]:
    return dict.fromkeys(RANKS, digest)


def test_equal_weights_need_no_list_and_leave_no_report(group: Group) -> None:
    group.publish(0, alike())
    group.tick()
    assert group.outcomes() == [(0, "equal")]
    assert group.outcomes(2) == group.outcomes(5) == []
    assert group.store.num_keys() == 1  # the state of the leader
    assert not any(exchange.pending for exchange in group.exchanges.values())


def test_the_spread_of_arrival_is_that_of_the_clocks(group: Group) -> None:
    group.publish(3, alike())
    group.tick()
    assert group.results[0][0].skew == pytest.approx(0.005)


def test_a_mismatch_is_explained_on_all_ranks_once_lists_are_there(group: Group) -> None:
    group.publish(0, alike())
    group.tick()
    group.publish(10, {0: "x", 2: "x", 5: "y"})
    group.tick()
    assert group.outcomes() == [(0, "equal"), (10, "different"), (10, "explained")]
    for rank in RANKS:
        (found,) = [each for each in group.results[rank] if each.outcome == "explained"]
        assert (found.differing, found.layers, found.equal_at, found.leads) == ((5,), ("b",), 0, rank == 0)
    assert not group.store.check(["report/10/0"])
    assert not group.store.check(["detail/10/0"])


def test_lists_of_weights_that_stay_different_are_exchanged_ever_more_rarely(group: Group) -> None:
    for key in range(1, 17):
        group.publish(key, {0: "x", 2: "x", 5: "y"})
        group.tick()
    explained = [step for step, outcome in group.outcomes() if outcome == "explained"]
    assert explained == [1, 2, 4, 8, 16]
    group.publish(17, alike())
    group.tick()
    assert group.results[5][-1].outcome == "equal"  # all ranks learn that it is over


def test_a_rank_that_is_late_blocks_nobody_and_is_counted(group: Group) -> None:
    for key in range(MOST + 3):
        group.publish(key, {0: "x", 2: "x"})
        group.tick(1)
    given_up = [each for each in group.results[0] if each.outcome == "incomplete"]
    assert [each.step for each in given_up] == [0, 1, 2]
    assert {each.absent for each in given_up} == {(5,)}
    group.exchanges[5].tick()
    group.publish(1, {5: "x"})  # at last
    assert group.outcomes(5) == [(1, "incomplete")]
    group.publish(MOST, {5: "x"})
    group.tick()
    assert (MOST, "equal") in group.outcomes()


def test_a_report_that_crosses_its_end_is_removed_by_its_rank(group: Group) -> None:
    for key in range(MOST + 1):
        group.publish(key, {0: "x", 2: "x"})
    group.publish(0, {5: "x"})  # before it has read that the step was given up
    assert group.store.check(["report/0/5"])
    group.tick()
    assert not group.store.check(["report/0/5"])
    assert group.outcomes(5) == [(0, "incomplete")]


def test_a_rank_without_a_leader_keeps_few_keys(group: Group) -> None:
    for key in range(3 * MOST):
        group.publish(key, {2: "x"})
    assert group.store.num_keys() == MOST
    assert len(group.results[2]) == 2 * MOST


def test_large_models_keep_fewer_steps() -> None:
    group = Group()
    names = [f"{number}\tfloat32\t(1,)" for number in range(100_000)]
    detail = Detail(names=names, digests=names, norms=[None] * len(names))
    for key in range(FEWEST + 2):
        group.exchanges[2].publish(Summary(key=key, step=key, at=0, weights="x"), detail)
    assert group.store.num_keys() == FEWEST


def test_ranks_that_nothing_states_to_be_replicas_are_left_alone_if_they_begin_apart() -> None:
    group = Group(presumed=True)
    group.publish(0, {0: "x", 2: "y", 5: "z"})
    group.tick()
    group.publish(1, alike())
    group.tick()
    assert [group.outcomes(rank) for rank in RANKS] == [[], [], []]
    assert all(exchange.closed for exchange in group.exchanges.values())


def test_presumed_replicas_of_which_a_part_stays_equal_are_left_alone() -> None:
    group = Group(presumed=True)
    group.publish(0, alike())
    group.tick()
    group.publish(1, {0: "x", 2: "y", 5: "z"})  # parameter "a" is shared
    group.tick()
    assert group.outcomes() == [(0, "equal")]
    assert all(exchange.closed for exchange in group.exchanges.values())


def test_a_crowded_leader_thins_comparisons_on_all_ranks(group: Group) -> None:
    for key in range(8):
        group.publish(key, alike())
    group.exchanges[0].thin()
    group.tick()
    assert {step for step, outcome in group.outcomes() if outcome == "equal"} == {0, 2, 4, 6}
    group.publish(9, alike())
    group.publish(10, alike())
    group.tick()
    assert (10, "equal") in group.outcomes()
    assert (9, "equal") not in group.outcomes()


def test_lists_that_never_come_are_not_waited_for(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nissa.distributed.replica_exchange._DETAIL_SECONDS", 0.0)
    group.publish(0, {0: "x", 2: "y", 5: "y"})
    group.exchanges[0].tick()  # compares
    group.exchanges[2].tick()  # sends its list
    group.exchanges[0].tick()  # goes on without that of rank 5
    (found,) = [each for each in group.results[0] if each.outcome == "explained"]
    assert found.layers == ("b",)
    group.tick()


def test_ranks_that_begin_and_cease_to_read_the_same_data(group: Group) -> None:
    for key in range(4):
        group.publish(key, alike(), {0: f"p{key}", 2: f"q{key}", 5: f"p{key}"})
        group.tick()
    found = [each for each in group.results[2] if each.outcome == "data"]
    assert [each.same_data for each in found] == [((0, 5),)]
    assert found[0].same_steps == (0, 1, 2, 3)
    group.publish(4, alike(), {0: "r", 2: "s", 5: "t"})
    group.tick()
    assert [each.same_data for each in group.results[2] if each.outcome == "data"] == [((0, 5),), ()]


def test_batches_that_do_not_change_tell_nothing(group: Group) -> None:
    for key in range(8):
        group.publish(key, alike(), dict.fromkeys(RANKS, "fixed"))
        group.tick()
    assert not any(each.outcome == "data" for each in group.results[0])


def test_steps_are_compared_in_their_order_if_reports_arrive_between_two_looks(group: Group) -> None:
    for key in range(6):
        group.publish(key, {0: "x", 2: "x"})
    looks = count()

    class Arriving:
        """Store to which the last rank writes its reports between the first look and the second."""

        def __getattr__(self, name: str) -> Any:
            return getattr(group.store, name)

        def check(self, keys: list[str]) -> bool:
            if next(looks) == 1:
                for key in range(6):
                    group.publish(key, {5: "x"})
            return bool(group.store.check(keys))

    leader = group.exchanges[0]
    leader._store = Arriving()  # type: ignore[assignment]  # it has its methods
    leader.tick()
    leader._store = group.store
    group.tick()
    assert [step for step, outcome in group.outcomes() if outcome == "equal"] == [0, 1, 2, 3, 4, 5]


def test_a_report_that_its_rank_removes_between_check_and_get_costs_that_step_only(group: Group) -> None:
    group.publish(0, alike())

    class Removing:
        """Store in which a report is gone once it was found, so that reading it times out."""

        def __getattr__(self, name: str) -> Any:
            return getattr(group.store, name)

        def get(self, key: str) -> bytes:
            if key == "report/0/5":
                raise RuntimeError("wait timeout after 5000ms")
            return bytes(group.store.get(key))

    leader = group.exchanges[0]
    leader._store = Removing()  # type: ignore[assignment]  # it has its methods
    leader.tick()
    leader._store = group.store
    group.publish(1, alike())
    group.tick()
    assert group.outcomes() == [(0, "incomplete"), (1, "equal")]
