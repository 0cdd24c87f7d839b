"""Ranks that agree through a store, here as threads of one process, whichever of them is late."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch.distributed import FileStore, HashStore, TCPStore  # type: ignore[attr-defined]

from nissa.distributed.consensus import LocalConsensus, StoreConsensus, consensus
from tests.support import until

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Ranks = Callable[..., list[StoreConsensus]]
FAULTS: list[Exception] = []


@pytest.fixture(params=["hash", "tcp", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> "Store":
    if request.param == "tcp":
        return TCPStore("127.0.0.1", 0, 1, True)
    return HashStore() if request.param == "hash" else FileStore(str(tmp_path / "store"), 1)


@pytest.fixture
def make(store: "Store") -> Iterator[Ranks]:
    made: list[StoreConsensus] = []
    FAULTS.clear()

    def ranks(number: int, present: int | None = None) -> list[StoreConsensus]:
        here = [StoreConsensus(store, rank, number, FAULTS.append) for rank in range(present or number)]
        made.extend(here)
        return here

    yield ranks
    for each in made:
        each.close()


def settled(store: "Store", round_number: int) -> bool:
    return bool(store.check([f"{round_number}/decision"]))


def test_all_get_the_maximum_of_what_they_want(make: Ranks, store: "Store") -> None:
    ranks = make(3)
    for round_number, proposals in enumerate([[(0, 32), (4, 64), (2, 32)], [(1, 32), (0, 32), (0, 32)]]):
        for rank, proposal in zip(ranks, proposals, strict=True):
            rank.propose(round_number, proposal)
        until(lambda round_number=round_number: settled(store, round_number), "the ranks' agreement")  # type: ignore[misc]
        found = [rank.decision(round_number) for rank in ranks]
        assert found == [[(4, 64)] * 3, [(1, 32)] * 3][round_number]
    assert not FAULTS


def test_what_was_settled_before_is_forgotten(make: Ranks, store: "Store") -> None:
    ranks = make(2)
    for round_number in range(2):
        for rank in ranks:
            rank.propose(round_number, (1,))
        until(lambda round_number=round_number: settled(store, round_number), "the ranks' agreement")  # type: ignore[misc]
        assert [rank.decision(round_number) for rank in ranks] == [(1,)] * 2
    until(lambda: not settled(store, 0), "the first matter to be deleted")
    assert not store.check(["0/0"])


def test_a_rank_that_takes_no_part_changes_nothing_and_holds_up_nobody(make: Ranks) -> None:
    first, second = make(3, present=2)
    for round_number in range(3):
        first.propose(round_number, (4,))
        second.propose(round_number, (4,))
        began = time.monotonic()
        assert (first.decision(round_number), second.decision(round_number)) == (None, None)
        assert time.monotonic() - began < 5
    assert not FAULTS


def test_who_acts_before_all_have_told_settles_it_for_all(make: Ranks, store: "Store") -> None:
    early, late = make(2)
    early.propose(0, (4,))
    assert early.decision(0) is None
    late.propose(0, (4,))
    until(lambda: store.add("0/proposals", 0) == 2, "the late rank's wish")
    assert late.decision(0) is None


def test_ranks_agree_however_they_race(make: Ranks) -> None:
    """Each acts at once, so that it is chance who is first; some rounds must come out either way."""
    ranks, rounds = make(2), 200
    found: list[list[object]] = [[], []]

    def play(rank: int) -> None:
        for round_number in range(rounds):
            ranks[rank].propose(round_number, (round_number,))
            # Longer and longer, so that some rounds come out either way on a machine of any speed.
            time.sleep(0.0005 * (round_number % 7) * (1 + round_number // 20))
            if round_number >= rounds - 4 and not any(found[rank]):
                time.sleep(2 ** (round_number - rounds + 4))  # on a busy machine, even the longest was too short
            found[rank].append(ranks[rank].decision(round_number))

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found[0]) == rounds
    assert found[0] == found[1]
    assert not FAULTS
    assert {None} < set(found[0])


class Broken:
    def __getattr__(self, name: str) -> object:
        raise ConnectionError(name)


def test_a_store_that_fails_is_told_of_and_changes_nothing() -> None:
    FAULTS.clear()
    rank = StoreConsensus(Broken(), 0, 2, FAULTS.append)  # type: ignore[arg-type]  # on purpose
    rank.propose(0, (1,))
    until(lambda: FAULTS, "the fault")
    assert rank.decision(0) is None
    assert {type(each) for each in FAULTS} == {ConnectionError}
    rank.close()


def test_one_rank_agrees_with_itself() -> None:
    alone = consensus("title", FAULTS.append)
    assert isinstance(alone, LocalConsensus)
    assert alone.decision(0) is None
    alone.propose(0, (3, 64))
    assert (alone.decision(0), alone.decision(1)) == ((3, 64), None)
    alone.close()
