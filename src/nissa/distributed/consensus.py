"""How ranks agree on a number without waiting for each other, through the store that brought them together.

A matter is settled by whoever writes first: the rank that learns last what all want writes their maximum, and a rank
that has to act before anybody did writes that nothing changes. Every rank then acts upon what stands there. Nothing of
this is a collective, so that a rank that takes no part holds up nobody: without it nothing changes.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import sleep
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import torch

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

Proposal: TypeAlias = tuple[int, ...]
"""What a rank wants; of several wishes each number's maximum is granted."""

_NOTHING: Final = "-"
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.2
"""Seconds between looks for what another rank wrote: at first, and at most."""


class Consensus(Protocol):
    """Where wishes are made and granted."""

    def propose(self, round_number: int, proposal: Proposal) -> None:
        """Say what this rank wants; never waits. Matters are numbered in the order in which they are settled."""

    def decision(self, round_number: int) -> Proposal | None:
        """Return what was granted, the same on all ranks; None where nothing changes."""

    def close(self) -> None:
        """Make no further wishes."""


class LocalConsensus:
    """The agreement of one rank with itself."""

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
    """An agreement of all ranks.

    Args:
        store: What all ranks reach.
        rank: Of this process.
        ranks: How many there are.
        on_fault: Told of what the store raised; the matter at hand then stays as it is.
    """

    def __init__(self, store: "Store", rank: int, ranks: int, on_fault: Callable[[Exception], None]) -> None:
        self._store = store
        self._rank = rank
        self._ranks = ranks
        self._on_fault = on_fault
        self._known: dict[int, str] = {}
        self._passed = -1
        self._closed = False
        self._proposals: SimpleQueue[tuple[int, Proposal] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="nissa-agreement", daemon=True)
        self._thread.start()

    def propose(self, round_number: int, proposal: Proposal) -> None:
        """See `Consensus`."""
        self._proposals.put((round_number, proposal))

    def decision(self, round_number: int) -> Proposal | None:
        """See `Consensus`. Where our thread has not heard of it yet, this asks the store once."""
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
                if not self._closed:  # at the end the store may be gone
                    self._on_fault(error)

    def _exchange(self, round_number: int, proposal: Proposal) -> None:
        self._store.set(f"{round_number}/{self._rank}", _encode(proposal))
        if self._store.add(f"{round_number}/told", 1) == self._ranks:
            proposals = [_decode(self._read(f"{round_number}/{rank}")) for rank in range(self._ranks)]
            granted = tuple(max(each) for each in zip(*filter(None, proposals), strict=True))
            self._remember(round_number, self._decide(round_number, _encode(granted)))
            self._forget(round_number - 1)
        else:
            self._poll(round_number)

    def _poll(self, round_number: int) -> None:
        """Look from time to time what was settled, until we had to act or have something else to wish."""
        look = _FIRST_LOOK
        while self._passed < round_number and self._proposals.empty() and not self._closed:
            if self._store.check([f"{round_number}/settled"]):
                self._remember(round_number, self._read(f"{round_number}/settled"))
                return
            sleep(look)
            look = min(2 * look, _LAST_LOOK)

    def _remember(self, round_number: int, decision: str) -> None:
        self._known = {round_number: decision}

    def _read(self, key: str) -> str:
        """Return what is known to be there: for anything else this would wait."""
        return self._store.get(key).decode()

    def _decide(self, round_number: int, value: str) -> str:
        """Write what is granted, and return what stands there: whoever was first."""
        found: bytes = self._store.compare_set(f"{round_number}/settled", "", value)
        return found.decode()

    def _forget(self, round_number: int) -> None:
        """Delete an earlier matter: that all have told of the next means that all have acted upon it."""
        for key in ("told", "settled", *range(self._ranks)):
            self._store.delete_key(f"{round_number}/{key}")


def consensus(title: str, on_fault: Callable[[Exception], None]) -> Consensus:
    """Return how this process agrees with the others on a matter of that title, alone where there are none."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return LocalConsensus()
    ranks = torch.distributed.get_world_size()
    store: Any = torch.distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - it has no other name
    if ranks == 1 or store is None:
        return LocalConsensus()
    prefixed = torch.distributed.distributed_c10d.PrefixStore(f"nissa/{title}", store)
    return StoreConsensus(prefixed, torch.distributed.get_rank(), ranks, on_fault)


def _encode(proposal: Proposal) -> str:
    return ",".join(map(str, proposal))


def _decode(text: str) -> Proposal | None:
    return None if text == _NOTHING else tuple(map(int, text.split(",")))
