"""Shutdown hook that ends a run at interpreter exit, SIGTERM or SIGHUP and preserves the exit status."""

import atexit
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final

from nissa.run.exit_status import ExitWatch, RunEnd
from nissa.run.signal_watch import SignalWatch

if TYPE_CHECKING:
    from nissa.hub.critical import CriticalSections

Handler = Callable[[int, FrameType | None], object]


_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class ShutdownHook:
    """Calls a function once at interpreter exit, SIGTERM or SIGHUP, in the process that created the hook.

    A signal is handled only if its action is the default one. After the call, the default action is restored and the signal
    is sent again, so that the exit status is unchanged. A signal handler can run between any two bytecodes of the main
    thread. If it interrupts a critical section, the shutdown is deferred until the section ends. If the main thread is
    stuck in C code, so that no handler runs, a thread of its own calls the function; see `SignalWatch`.

    Args:
        end: Function that ends the run; called with the end of the process. Does nothing where `claim` is False.
        sections: Critical sections that a signal may interrupt.
        limit: Seconds that `end` takes at most.
    """

    def __init__(self, end: Callable[[RunEnd], None], sections: "CriticalSections", limit: float) -> None:
        self._end = end
        self._sections = sections
        self._limit = limit
        self._pid = os.getpid()
        self._handlers: dict[int, Handler] = {}
        self._handling = False
        # Threads that tried to end the run, the one that does so first: appending is atomic, and a signal handler can do it.
        self._claims: list[int] = []
        self._released = threading.Event()
        self._pending_signal: int | None = None
        self._watch: SignalWatch | None = None
        self._exit_watch = ExitWatch()
        atexit.register(self._at_exit)
        if threading.current_thread() is threading.main_thread():
            self._install()

    def _install(self) -> None:
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = self._on_signal
                signal.signal(number, self._on_signal)
        if self._handlers:
            self._watch = SignalWatch(
                self._handlers, handled=lambda: self._handling or self._ending, end=self._end_stuck_process
            )

    @property
    def _ending(self) -> bool:
        return bool(self._claims) and not self._released.is_set()

    def claim(self) -> bool:
        """Have the calling thread end the run: a signal that arrives from now on is sent again by `release`.

        Returns:
            False if a thread has claimed the end before.
        """
        thread = threading.get_ident()
        if thread in self._claims:
            return False
        self._claims.append(thread)
        return self._claims[0] == thread

    def release(self) -> None:
        """Remove the exit and signal handlers, and send a signal again that arrived since `claim`."""
        atexit.unregister(self._at_exit)
        self._exit_watch.close()
        handlers, self._handlers = self._handlers, {}
        if threading.current_thread() is threading.main_thread():
            watch, self._watch = self._watch, None
            if watch is not None:
                watch.close()
            for number, handler in handlers.items():
                if signal.getsignal(number) == handler:
                    signal.signal(number, signal.SIG_DFL)
        self._released.set()
        if self._pending_signal is not None:
            _resend(self._pending_signal)

    def abandon(self) -> None:
        """Stop watching for signals of the parent in a forked child."""
        self._exit_watch.close()
        if self._watch is not None:
            self._watch.release()

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._end(self._exit_watch.at_exit())

    def _on_signal(self, signal_number: int, _frame: FrameType | None) -> None:
        self._handling = True
        if os.getpid() != self._pid:  # a forked child inherits the handler, but has no run to end
            _resend(signal_number)
        elif self._sections.inside:
            self._sections.defer(partial(self._shut_down, signal_number))
        else:
            self._shut_down(signal_number)

    def _shut_down(self, signal_number: int) -> None:
        if self._ending and self._claims[0] == threading.get_ident():
            self._pending_signal = signal_number  # the interrupted frame is ending the run and must finish first
            return
        self._end(RunEnd(signal.Signals(signal_number).name))
        # Another thread may be ending the run. The interrupted training must not go on meanwhile: its calls would meet a
        # closed run, and its own end would hide the signal. The limit is for a thread that waits for a lock of this one.
        self._released.wait(self._limit)
        _resend(signal_number)

    def _end_stuck_process(self, signal_number: int) -> None:
        self._end(RunEnd(signal.Signals(signal_number).name))


def _resend(signal_number: int) -> None:
    """Send a signal to this process again, with its default action."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)
