"""Ends a run however the process ends, without changing how it ends."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class ExitGuard:
    """Calls back once at interpreter exit or SIGTERM, in the process that made it.

    SIGTERM is handled only where nobody else does: after the callback its default action is restored and the signal is
    sent again, so that the exit status stays what it would have been.

    Args:
        end: Called with the reason, None for a normal exit.
    """

    def __init__(self, end: Callable[[str | None], None]) -> None:
        self._end = end
        self._pid = os.getpid()
        self._handler: Handler | None = None
        atexit.register(self._at_exit)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._handler = self._on_signal
            signal.signal(signal.SIGTERM, self._handler)

    def release(self) -> None:
        """Stand down; what the process does at its end is as it was before."""
        atexit.unregister(self._at_exit)
        handler, self._handler = self._handler, None
        if (
            handler is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == handler
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            # The interpreter leaves an exception that ended the program here after printing it.
            error = getattr(sys, "last_value", None)
            self._end(None if error is None else type(error).__name__)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self._pid:
            self._end(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
