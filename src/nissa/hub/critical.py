"""Critical sections: code that holds a lock of ours and must not be entered a second time by the same thread.

Three kinds of frame can run between any two bytecodes of a section: a signal handler, a finalizer that the garbage
collector calls, and foreign code that either of them calls. None of them may wait for a lock of ours: the thread that
holds it is the one they interrupted. They ask `CriticalSections.inside` instead, and `CriticalSections.defer` what they
would have done until the section is left, microseconds later.

Example:
    ``with sections, lock:`` around the section, where ``lock = sections.lock()``.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class _Deferred(threading.local):
    """Calls that wait until the calling thread has left its sections."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()


class CriticalSections:
    """The locks of one hub and of everything that listens to it.

    Used as a context manager around a lock, it runs deferred calls once the thread holds none of the locks any more.
    """

    def __init__(self) -> None:
        self._locks: tuple[weakref.ref[threading.RLock], ...] = ()
        self._shared: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self._deferred = _Deferred()

    def lock(self, shared_as: str | None = None) -> threading.RLock:
        """Return a lock whose holder is known: a new one, or the one that is shared under a name.

        `inside` asks every lock, and each event asks `inside`: what exists once per environment shares one lock.

        It is entered by the interpreter's own C code, so that a KeyboardInterrupt never leaves it locked. It is a
        reentrant one because only that kind knows its owner; nothing relies on entering it twice.
        """
        if shared_as is not None and (shared := self._shared.get(shared_as)) is not None:
            return shared
        made = threading.RLock()
        if shared_as is not None:
            made = self._shared.setdefault(shared_as, made)
        # A new tuple instead of an append: `inside` may iterate over the old one, in a signal handler.
        self._locks = (*(known for known in self._locks if known() is not None), weakref.ref(made))
        return made

    @property
    def inside(self) -> bool:
        """Whether the calling thread is in a critical section."""
        for known in self._locks:
            lock = known()
            if lock is not None and lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition does
                return True
        return False

    def defer(self, call: Callable[[], object]) -> None:
        """Run a call when the calling thread leaves its critical section; it must not raise."""
        self._deferred.calls.append(call)

    def renew_in_child(self) -> None:
        """Release all locks in a forked child: the threads that held them did not come along."""
        for known in self._locks:
            if (lock := known()) is not None:
                lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as threading does with its own locks

    def __enter__(self) -> None:
        """Begin a section; the lock itself is entered next."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Run what was deferred meanwhile, unless an outer section is still held."""
        calls = self._deferred.calls
        while calls and not self.inside:
            calls.popleft()()
