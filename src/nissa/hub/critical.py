"""Critical sections: code that holds a Nissa lock and must not be re-entered by the same thread.

Three kinds of frame can run between any two bytecodes of a section: a signal handler, a finalizer called by the garbage
collector, and foreign code called by either of them. None of them may wait for a Nissa lock, because the interrupted
thread holds it. They check `CriticalSections.inside` instead, and postpone their work with `CriticalSections.defer`
until the section ends, microseconds later.

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
    """Deferred calls of the current thread, run after it has left its critical sections."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()


class CriticalSections:
    """Registry of the locks of one hub and of its run.

    As a context manager around a lock, it runs the deferred calls after the thread has released all of the locks.
    """

    def __init__(self) -> None:
        # Weak references, so that the locks of discarded objects disappear from the registry.
        self._locks: tuple[weakref.ref[threading.RLock], ...] = ()
        self._shared: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self._deferred = _Deferred()

    def lock(self, shared_as: str | None = None) -> threading.RLock:
        """Return a registered lock: a new one, or the one that is shared under a name.

        Each event evaluates `inside`, which checks every lock. Objects that exist once per environment therefore share
        one lock.

        The interpreter acquires the lock in C code, so a KeyboardInterrupt never leaves it locked. The lock is
        reentrant only because an `RLock` knows its owner; no code acquires it twice.
        """
        if shared_as is not None and (shared := self._shared.get(shared_as)) is not None:
            return shared
        made = threading.RLock()
        if shared_as is not None:
            made = self._shared.setdefault(shared_as, made)
        # Replace the tuple instead of appending to a list: a signal handler may interrupt an iteration in `inside`.
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
        """Schedule a call for the moment when the current thread leaves its critical section; it must not raise."""
        self._deferred.calls.append(call)

    def renew_in_child(self) -> None:
        """Release all locks in a forked child: the threads that held them exist only in the parent."""
        for known in self._locks:
            if (lock := known()) is not None:
                lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as threading does with its own locks

    def __enter__(self) -> None:
        """Begin a section; the ``with`` statement acquires the lock next."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Run the deferred calls, unless the thread is still in an outer section."""
        calls = self._deferred.calls
        while calls and not self.inside:
            calls.popleft()()
