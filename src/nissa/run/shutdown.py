"""Shutdown hook that ends a run at interpreter exit or SIGTERM and preserves the exit status."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.hub.critical import CriticalSections

Handler = Callable[[int, FrameType | None], object]


class ShutdownHook:
    """Calls a function once at interpreter exit or SIGTERM, in the process that created the hook.

    SIGTERM is handled only if the application has no handler of its own. After the call, the default action is restored
    and the signal is sent again, so that the exit status is unchanged. A signal handler can run between any two
    bytecodes of the main thread. If it interrupts a critical section, the shutdown is deferred until the section ends.

    Args:
        end: Function that ends the run; called with the reason, None for a normal exit.
        sections: Critical sections that a signal may interrupt.
    """

    def __init__(self, end: Callable[[str | None], None], sections: "CriticalSections") -> None:
        self._end = end
        self._sections = sections
        self._pid = os.getpid()
        self._handler: Handler | None = None
        self._ending = False
        self._pending_signal: int | None = None
        atexit.register(self._at_exit)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._handler = self._on_signal
            signal.signal(signal.SIGTERM, self._handler)

    def begin(self) -> None:
        """Mark the run as ending: a signal that arrives from now on is sent again by `release`."""
        self._ending = True

    def release(self) -> None:
        """Remove the exit and signal handlers, and send a signal again that arrived since `begin`."""
        atexit.unregister(self._at_exit)
        handler, self._handler = self._handler, None
        if (
            handler is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == handler
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._ending = False
        if self._pending_signal is not None:
            _resend(self._pending_signal)

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            # The interpreter stores an uncaught exception in `sys.last_value` after printing it.
            error = getattr(sys, "last_value", None)
            self._end(None if error is None else type(error).__name__)

    def _on_signal(self, signal_number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child inherits the handler, but has no run to end
            _resend(signal_number)
        elif self._sections.inside:
            self._sections.defer(partial(self._shut_down, signal_number))
        else:
            self._shut_down(signal_number)

    def _shut_down(self, signal_number: int) -> None:
        if self._ending:  # the interrupted frame is already ending the run and must finish first
            self._pending_signal = signal_number
            return
        self._end(signal.Signals(signal_number).name)
        _resend(signal_number)


def _resend(signal_number: int) -> None:
    """Send a signal to this process again, with its default action."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)
