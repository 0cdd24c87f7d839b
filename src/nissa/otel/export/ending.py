"""Ends providers within a bound, even where a collector is away.

Left to itself the SDK ends its providers one after the other at interpreter exit, each with retries of its own: with
nobody answering that takes 12 to 16 seconds.
"""

import atexit
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

from nissa.otel.export.keeping import Channel, channels, waiting

_logger = logging.getLogger("nissa")

_LEAST_SECONDS: Final = 0.2
_LAST_WORD_SECONDS: Final = 0.1
"""How much of a timeout is left to say that it was one, before whoever set it ends the process."""


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
        self._told = False
        self._pid = os.getpid()

    def flush(self, timeout: float) -> bool:
        """Export what is held, at most so many seconds; whether that ended in time."""
        return self._all("force_flush", timeout)

    def shutdown(self, timeout: float) -> bool:
        """Export what is held and end the providers; whether that ended in time."""
        return self._all("shutdown", timeout)

    def at_exit(self) -> None:
        """End the providers at interpreter exit, in place of the SDK's own handlers."""
        for provider in self._providers:
            # Each would wait for its own retries. The three signals keep it under names that differ, but it is always this.
            atexit.unregister(getattr(provider, "shutdown", self._exit))
        atexit.register(self._exit)

    def _exit(self) -> None:
        if os.getpid() != self._pid:  # a forked child has neither the threads nor anything to tell
            return
        self.shutdown(max(self._limit - self._spent, _LEAST_SECONDS))
        found = self._channels()
        for reach in {channel.reach for channel in found}:
            reach.end(waiting(found))

    def _channels(self) -> list[Channel]:
        return [channel for provider in self._providers for channel in channels(provider)]

    def _all(self, method: str, timeout: float) -> bool:
        began = monotonic()
        self._spent = timeout  # until it is known: the exit may begin while this waits
        calls: list[Callable[[], Any]] = [partial(_export, provider, method) for provider in self._providers]
        ended = _bounded(calls, timeout - min(_LAST_WORD_SECONDS, timeout / 4))
        delivered = ended and not any(channel.behind for channel in self._channels())
        self._spent = 0.0 if delivered else monotonic() - began
        if not ended:
            self._late(timeout)
        return delivered

    def _late(self, seconds: float) -> None:
        found = [channel for channel in self._channels() if channel.waiting]
        if found:
            reason = next((channel.attempt.reason for channel in found if channel.attempt.reason), "")
            found[0].reach.late(found[0].endpoint, seconds, reason, waiting(found))
        elif not self._told:
            self._told = True
            _logger.warning("Not all telemetry could be exported within %.1f s; is the collector there?", seconds)


def _export(provider: Any, method: str) -> None:
    for channel in channels(provider):
        channel.retry()
    getattr(provider, method, lambda: True)()


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
