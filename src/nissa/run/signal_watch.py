"""Thread that notices a signal whose Python handler never runs, because the main thread is stuck in C code.

CPython calls Python signal handlers between two bytecodes of the main thread. A collective that waits for a dead rank, or
a device synchronisation that hangs, never gets there, and the process would survive SIGTERM without telemetry. The C part
of the handler, however, writes the number of the signal to the file descriptor of `signal.set_wakeup_fd` at once.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

GRACE_SECONDS: Final = 0.5
"""Time that the Python handler has to start before the thread acts instead."""

_RECEIVED_BYTES: Final = 4_096
_DEFAULT_ACTION: Final = 0
"""``SIG_DFL`` of the C library."""


class SignalWatch:
    """Reads signal numbers from a wakeup descriptor; use it from the main thread only.

    Nothing is watched if another library, such as an asyncio event loop, uses the wakeup descriptor.

    Args:
        numbers: Signals to watch.
        handled: Whether the Python handler of a signal has started.
        end: Ends the run; called with the number of the signal, on the thread of this object, before the default action
            of the signal ends the process.
    """

    def __init__(self, numbers: Collection[int], *, handled: Callable[[], bool], end: Callable[[int], object]) -> None:
        self._numbers = frozenset(numbers)
        self._handled = handled
        self._end = end
        self._closing = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if previous != -1:
            signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
            self._reader.close()
            return
        threading.Thread(target=self._run, name="nissa-signal", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self.release()
        with suppress(OSError):
            self._writer.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes the other end
        self._writer.close()

    def release(self) -> None:
        """Give the wakeup descriptor back; a forked child does only this, or its signals would look like its parent's."""
        with suppress(ValueError):  # not the main thread
            current = signal.set_wakeup_fd(-1)
            if current not in {-1, self._writer.fileno()}:
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def _run(self) -> None:
        with self._reader:
            while received := self._receive():
                found = self._numbers.intersection(received)
                if found and self._is_stuck() and not self._handled():
                    self._act(min(found))

    def _receive(self) -> bytes:
        try:
            return self._reader.recv(_RECEIVED_BYTES)
        except OSError:
            return b""

    def _is_stuck(self) -> bool:
        """Return whether the main thread executes no bytecode for `GRACE_SECONDS`, so that no handler can run."""
        before = _position_of_main_thread()
        return not self._closing.wait(GRACE_SECONDS) and _position_of_main_thread() == before

    def _act(self, number: int) -> None:
        self._end(number)
        # `signal.signal` works in the main thread only.
        ctypes.CDLL(None).signal(number, _DEFAULT_ACTION)
        os.kill(os.getpid(), number)


def _position_of_main_thread() -> tuple[int, int] | None:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented, in spite of its name
    return None if frame is None else (id(frame), frame.f_lasti)
