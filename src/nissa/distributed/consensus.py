"""Non-blocking consensus of ranks on numbers, through the store of the process group (``torch.distributed.Store``).

Each round has one decision, and the first write decides. The rank that completes the set of proposals writes their
elementwise maximum. A rank that needs the decision earlier writes "no change". All ranks then read and apply the same
decision. The protocol uses no collective, so a rank that does not take part blocks no other rank; the decision is then
"no change".
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import sleep
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import torch

from nissa.torch_compat import default_store

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Proposal: TypeAlias = tuple[int, ...]
"""Numbers proposed by a rank; the decision is the elementwise maximum over all ranks."""

_NOTHING: Final = "-"
_FIRST_POLL_SECONDS, _LAST_POLL_SECONDS = 0.005, 0.2
"""Initial and maximum interval for polling the store, in seconds."""


class Consensus(Protocol):
    """Interface for proposals and decisions."""

    def propose(self, round_number: int, proposal: Proposal) -> None:
        """Submit the proposal of this rank; never waits. Rounds are numbered in the order of their decisions."""

    def decision(self, round_number: int) -> Proposal | None:
        """Return the decision, the same on all ranks; None for "no change"."""

    def close(self) -> None:
        """Stop taking part: no further proposals follow."""


class LocalConsensus:
    """Consensus of a single process: its own proposal is the decision."""

    def __init__(self) -> None:
        self._proposal: tuple[int, Proposal] | None = None

    def propose(self, round_number: int, proposal: Proposal) -> None:
        """See `Consensus`."""
        self._proposal = round_number, proposal

    def decision(self, round_number: int) -> Proposal | None:
        """See `Consensus`."""
        return self._proposal[1] if self._proposal is not None and self._proposal[0] == round_number else None

    def close(self) -> None:
        """See `Consensus`."""


class StoreConsensus:
    """Consensus of all ranks through a store.

    Args:
        store: Store that all ranks can reach.
        rank: Rank of this process.
        ranks: Number of ranks.
        on_fault: Called with an exception of the store; the round then has no change on this rank.
    """

    def __init__(self, store: "Store", rank: int, ranks: int, on_fault: Callable[[Exception], None]) -> None:
        self._store = store
        self._rank = rank
        self._ranks = ranks
        self._on_fault = on_fault
        # Latest decision that the thread has read; saves the training thread the round trip to the store.
        self._known: dict[int, str] = {}
        # Latest round whose decision this rank has used; the thread stops polling for it.
        self._passed = -1
        self._closed = False
        # Decouples training from the store: a store access is a network round trip, so it runs on a thread.
        self._proposals: SimpleQueue[tuple[int, Proposal] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="nissa-agreement", daemon=True)
        self._thread.start()

    def propose(self, round_number: int, proposal: Proposal) -> None:
        """See `Consensus`."""
        self._proposals.put((round_number, proposal))

    def decision(self, round_number: int) -> Proposal | None:
        """See `Consensus`. If the thread has not read the decision yet, this accesses the store once."""
        self._passed = round_number
        found = self._known.pop(round_number, None)
        try:
            return _decode(self._decide(round_number, _NOTHING) if found is None else found)
        except Exception as error:  # noqa: BLE001 - training goes on as it did
            self._on_fault(error)
            return None

    def close(self) -> None:
        """See `Consensus`."""
        self._closed = True
        self._proposals.put(None)

    def _run(self) -> None:
        while (proposed := self._proposals.get()) is not None:
            try:
                self._exchange(*proposed)
            except Exception as error:  # noqa: BLE001 - training goes on as it did
                if not self._closed:  # after `close` the store may be shut down already
                    self._on_fault(error)

    def _exchange(self, round_number: int, proposal: Proposal) -> None:
        self._store.set(f"{round_number}/{self._rank}", _encode(proposal))
        if self._store.add(f"{round_number}/proposals", 1) == self._ranks:
            proposals = [_decode(self._read(f"{round_number}/{rank}")) for rank in range(self._ranks)]
            granted = tuple(max(each) for each in zip(*filter(None, proposals), strict=True))
            self._remember(round_number, self._decide(round_number, _encode(granted)))
            self._forget(round_number - 1)
        else:
            self._poll(round_number)

    def _poll(self, round_number: int) -> None:
        """Poll the store for the decision, until the round is used, a new proposal is queued or `close` is called."""
        pause = _FIRST_POLL_SECONDS
        while self._passed < round_number and self._proposals.empty() and not self._closed:
            if self._store.check([f"{round_number}/decision"]):
                self._remember(round_number, self._read(f"{round_number}/decision"))
                return
            sleep(pause)
            pause = min(2 * pause, _LAST_POLL_SECONDS)

    def _remember(self, round_number: int, decision: str) -> None:
        self._known = {round_number: decision}

    def _read(self, key: str) -> str:
        """Return the value of a key that exists; ``Store.get`` would wait for a missing key."""
        return self._store.get(key).decode()

    def _decide(self, round_number: int, value: str) -> str:
        """Write the decision unless another rank has written one; return the decision in the store."""
        found: bytes = self._store.compare_set(f"{round_number}/decision", "", value)
        return found.decode()

    def _forget(self, round_number: int) -> None:
        """Delete the keys of an earlier round. All ranks have applied it once all have proposed for the next one."""
        for key in ("proposals", "decision", *range(self._ranks)):
            self._store.delete_key(f"{round_number}/{key}")


def consensus(title: str, on_fault: Callable[[Exception], None]) -> Consensus:
    """Return the consensus of all ranks under a title, or a local one in a run with a single process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return LocalConsensus()
    ranks = torch.distributed.get_world_size()
    store = default_store()
    if ranks == 1 or store is None:
        return LocalConsensus()
    prefixed = torch.distributed.distributed_c10d.PrefixStore(f"nissa/{title}", store)
    return StoreConsensus(prefixed, torch.distributed.get_rank(), ranks, on_fault)


def _encode(proposal: Proposal) -> str:
    return ",".join(map(str, proposal))


def _decode(text: str) -> Proposal | None:
    return None if text == _NOTHING else tuple(map(int, text.split(",")))
