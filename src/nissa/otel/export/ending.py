"""Flush and shutdown of providers within a time limit, even where an exporter hangs.

Left to itself the SDK ends its providers one after the other at interpreter exit, each with retries of its own: with
no answer that takes 12 to 16 seconds.
"""

import atexit
import logging
import os
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nissa.otel.export.pipeline import ExportPipeline

_logger = logging.getLogger("nissa")

_MIN_SECONDS: Final = 0.2
_RESERVE_SECONDS: Final = 0.1
"""Part of a timeout that is kept for the log message about it, before the one who set the timeout ends the process."""


class BoundedEnd:
    """Flushes and ends exporting parts, on threads that are left behind when the time is up.

    Args:
        pipeline: The run's own pipeline, which keeps to a time limit by itself; None if there is none.
        parts: Providers with other exporters: objects with ``force_flush`` and ``shutdown``. None is skipped.
        limit: Seconds that the end may take; what an earlier end has taken of it counts.
    """

    def __init__(self, pipeline: "ExportPipeline | None", parts: Sequence[Any], limit: float) -> None:
        self._pipeline = pipeline
        self._parts = [part for part in parts if part is not None]
        self._limit = limit
        self._spent = 0.0
        self._logged = False
        self._pid = os.getpid()

    def flush(self, timeout: float) -> bool:
        """Export what is queued; return whether all of it was delivered in time."""
        return self._all("flush", "force_flush", timeout)

    def shutdown(self, timeout: float) -> bool:
        """Export what is queued and end the parts; return whether all of it was delivered in time."""
        return self._all("close", "shutdown", timeout)

    def at_exit(self) -> None:
        """End the parts at interpreter exit, instead of the SDK's own handlers."""
        for part in self._parts:
            # Each would wait for its own retries. The three signals keep it under names that differ, but it is always this.
            atexit.unregister(getattr(part, "shutdown", self._exit))
        atexit.register(self._exit)

    def _exit(self) -> None:
        if os.getpid() == self._pid:  # a forked child has neither the threads nor anything to export
            self.shutdown(max(self._limit - self._spent, _MIN_SECONDS))

    def _all(self, own: str, method: str, timeout: float) -> bool:
        began = monotonic()
        self._spent = timeout  # until it is known: the exit may begin while this waits
        deadline = began + timeout - min(_RESERVE_SECONDS, timeout / 4)
        delivered = self._pipeline is None or getattr(self._pipeline, own)(deadline - monotonic())
        calls = [getattr(part, method) for part in self._parts if hasattr(part, method)]
        outcomes = _bounded(calls, max(_MIN_SECONDS, deadline - monotonic()))
        delivered = delivered and outcomes is not None and False not in outcomes
        self._spent = 0.0 if delivered else monotonic() - began
        if outcomes is None and not self._logged:
            self._logged = True
            _logger.warning("Not all telemetry could be exported within %.1f s.", timeout)
        return delivered


def _bounded(calls: Sequence[Callable[[], Any]], timeout: float) -> list[Any] | None:
    """Make calls that may hang, each on a thread of its own; return their results, None if one is not done in time."""
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=_guarded, args=(call, outcomes), daemon=True, name="nissa-flush-part") for call in calls
    ]
    for thread in threads:
        thread.start()
    deadline = monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return None if any(thread.is_alive() for thread in threads) else outcomes


def _guarded(call: Callable[[], Any], outcomes: list[Any]) -> None:
    try:
        outcomes.append(call())
    except Exception as error:  # noqa: BLE001 - an exporter's failure at exit must not become the run's
        outcomes.append(False)
        _logger.warning("Could not export the last telemetry: %s", error)
