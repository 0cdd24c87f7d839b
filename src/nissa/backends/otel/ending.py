"""Ends providers within a bound, even where a collector is away.

Left to itself the SDK ends its providers one after the other at interpreter exit, each with retries of its own: with
nobody answering that takes 12 to 16 seconds.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

_logger = logging.getLogger("nissa")

_LEAST_SECONDS: Final = 0.2


class BoundedEnd:
    """Flushes and ends providers, on threads that are left behind when the time is up.

    Args:
        providers: Of traces, logs and metrics; None where a signal has none.
        limit: Seconds that the end may take; what a failed export has taken of it already counts.
    """

    def __init__(self, providers: Sequence[Any], limit: float) -> None:
        self._providers = [provider for provider in providers if provider is not None]
        self._limit = limit
        self._spent = 0.0

    def flush(self, timeout: float) -> bool:
        """Export what is held, at most so many seconds; whether that ended in time."""
        return self._all("force_flush", timeout)

    def shutdown(self, timeout: float) -> bool:
        """Export what is held and end the providers; whether that ended in time."""
        return self._all("shutdown", timeout)

    def at_exit(self) -> None:
        """End the providers at interpreter exit, in place of the SDK's own handlers."""
        for provider in self._providers:
            # Each would wait for its own retries. The SDK keeps the handler under this name in all three signals.
            handler = getattr(provider, "_atexit_handler", None)
            if handler is not None:
                atexit.unregister(handler)
        atexit.register(self._exit)

    def _exit(self) -> None:
        self.shutdown(max(self._limit - self._spent, _LEAST_SECONDS))

    def _all(self, method: str, timeout: float) -> bool:
        calls: list[Callable[[], Any]] = [getattr(provider, method, lambda: True) for provider in self._providers]
        self._spent = timeout  # until it is known: the exit may begin while this waits
        ended = _bounded(calls, timeout)
        self._spent = 0.0 if ended else timeout
        if not ended:
            _logger.warning("Not all telemetry could be exported within %.1f s; is the collector there?", timeout)
        return ended


def _bounded(calls: Sequence[Callable[[], Any]], timeout: float) -> bool:
    """Make calls that may hang, each on a thread of its own, and wait for all of them, but not for longer."""
    threads = [threading.Thread(target=_quietly, args=(call,), daemon=True, name="nissa-export") for call in calls]
    for thread in threads:
        thread.start()
    deadline = monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - an exporter's failure at exit must not become the run's
        _logger.warning("Could not export the last telemetry: %s", error)
