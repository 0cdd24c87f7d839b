"""Time that a thread waits for the batches of a ``DataLoader``.

``__next__`` of the loaders' iterators is replaced by a descriptor while someone uses it. A wrapper would appear in the
traceback of every exception that a dataset raises. The descriptor returns the original method inside iterators of the
standard library, which are implemented in C and have no frame.
"""

import threading
from collections.abc import Callable
from functools import partial
from itertools import filterfalse, starmap
from time import perf_counter_ns
from typing import Any, Final

import torch

from nissa.torch_compat import BATCH_ITERATOR

_NEXT: Final = "__next__"
_NO_ARGUMENTS: Final = ((),)


class _Waited(threading.local):
    """Waiting time of the current thread, in nanoseconds.

    Attributes:
        since: Time of the request that is waited for; None without one.
        total: Sum; None without a batch.
    """

    since: int | None = None
    total: int | None = None


class BatchWaits:
    """Observed ``__next__`` of the iterators of all loaders of the process.

    Only batches that are requested with gradients enabled count: the others are those of an evaluation.

    Args:
        owner: Class of the iterators.
    """

    def __init__(self, owner: type = BATCH_ITERATOR) -> None:
        self._owner = owner
        self._users = 0
        self._observers: tuple[Callable[[Any], None], ...] = ()
        self._waited = _Waited()

    def begin(self, observe: Callable[[Any], None] | None = None) -> None:
        """Begin to observe; each call needs a call of `end`.

        Args:
            observe: Called with the iterator when a batch is requested; it must not raise.
        """
        if observe is not None:
            self._observers = (*self._observers, observe)
        self._users += 1
        if self._users == 1 and _NEXT in vars(self._owner):
            setattr(self._owner, _NEXT, _ObservedNext(vars(self._owner)[_NEXT], self))

    def end(self, observe: Callable[[Any], None] | None = None) -> None:
        """End what a call of `begin` with the same argument has begun; restore the class with the last one."""
        self._observers = tuple(each for each in self._observers if each is not observe)
        self._users -= 1
        present = vars(self._owner).get(_NEXT)
        if not self._users and isinstance(present, _ObservedNext):
            setattr(self._owner, _NEXT, present.method)

    def take(self) -> int | None:
        """Return the nanoseconds that the current thread has waited since its last call; None without a batch."""
        waited = self._waited
        total, waited.total = waited.total, None
        return total

    def requested(self, iterator: Any) -> None:
        """Record that a batch is requested."""
        for observe in self._observers:
            observe(iterator)
        self._waited.since = perf_counter_ns() if torch.is_grad_enabled() else None

    def received(self, _batch: Any) -> None:
        """Record that the batch has arrived."""
        waited = self._waited
        since, waited.since = waited.since, None
        if since is not None:
            waited.total = (waited.total or 0) + perf_counter_ns() - since


class _ObservedNext:
    """Descriptor in the place of ``__next__``.

    Attributes:
        method: The method as the class defines it.
    """

    def __init__(self, method: Any, waits: BatchWaits) -> None:
        self.method = method
        self._waits = waits
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return a function that calls the original method and records its end; the method itself for the class."""
        method = self.method.__get__(instance, owner)
        if instance is None:
            return method
        self._waits.requested(instance)
        # `received` returns None, so that the batch passes through.
        return partial(next, filterfalse(self._waits.received, starmap(method, _NO_ARGUMENTS)))


BATCH_WAITS: Final = BatchWaits()
"""Waiting times of this process."""
