"""Backends of a run: created at its start, and removed at its end within a deadline."""

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from nissa.backends.console import ConsoleBackend, location_line
from nissa.errors import ConfigurationError, NissaError
from nissa.otel.backend import OpenTelemetryBackend
from nissa.otel.metrics.blueprint_metrics import BlueprintMetrics
from nissa.otel.metrics.export_metrics import ExportMetrics
from nissa.otel.metrics.hub_metrics import HubMetrics
from nissa.otel.metrics.memory_metrics import MemoryMetrics
from nissa.run.finding_callback import FindingCallback
from nissa.run.memory_usage import device_memory, resident_memory
from nissa.run.progress import ProgressReports
from nissa.run.undelivered import save, undelivered_path
from nissa.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from nissa.diagnostics.finding import Finding
    from nissa.distributed.rank import Rank
    from nissa.distributed.trace_context import TraceContext
    from nissa.events import TelemetryEvent
    from nissa.hub.backend import Backend
    from nissa.otel.export.building import BuiltPipeline
    from nissa.otel.setup import Providers
    from nissa.run.runtime import Runtime

_logger = logging.getLogger("nissa")

_CALLBACK: Final = "on_finding"


class RunBackends:
    """OpenTelemetry backend, console backend, and the backends of the user, added to the hub of a run.

    If one of them cannot be added, those that were already added are removed.

    Args:
        runtime: Components of the run.
        providers: OpenTelemetry providers that the run exports to.
        run_id: Identity of the run.
        rank: Rank of the process.
        user_backends: Backends of the user.
        trace: Trace context that the run was started in; None without one.

    Raises:
        ConfigurationError: A backend cannot be added; see `NissaHub.add_backend`.
    """

    def __init__(
        self,
        runtime: "Runtime",
        providers: "Providers",
        *,
        run_id: str,
        rank: "Rank",
        user_backends: "Iterable[Backend]",
        trace: "TraceContext | None" = None,
    ) -> None:
        self._runtime = runtime
        self._hub = runtime.hub
        self.otel = OpenTelemetryBackend(
            providers,
            runtime.config,
            run_id=run_id,
            start=runtime.now(),
            error_boundary=runtime.error_boundary,
            version=VERSION,
            trace=trace,
        )
        self._add_metrics(providers.built)
        if self.otel.refused is not None and providers.meter is not None:
            _logger.warning("Metrics of this run are not exported: %s.", self.otel.refused)
        runtime.rows.progress = ProgressReports(runtime, lines=runtime.config.console.enabled)
        destination = None if providers.tracer is None else providers.origin
        self._closing = None if providers.in_memory else location_line(run_id, providers.folder, destination)
        # Absolute, since the script may change its working directory.
        self._folder: Path = runtime.config.files.directory.absolute() / run_id
        self._suffix = rank.suffix
        self._added: list[str] = []
        self._add(user_backends, providers)

    def _add_metrics(self, built: "BuiltPipeline | None") -> None:
        """Add the metrics of hub, blueprints and export, which are refreshed before each collection."""
        runtime, store = self._runtime, self.otel.store
        limits = runtime.config.limits
        health = HubMetrics(store, self._hub, dropped=lambda: runtime.readback.dropped, now=runtime.now, limits=limits)
        blueprints = BlueprintMetrics(
            store, lambda: runtime.analytics.snapshot()["blueprints"], now=runtime.now, most=limits.max_blueprints
        )
        store.refreshers += [health.refresh, blueprints.refresh]
        if runtime.config.process.memory:
            memory = MemoryMetrics(store, resident=resident_memory, devices=device_memory, now=runtime.now)
            store.refreshers.append(memory.refresh)
        if built is not None:
            store.refreshers.append(ExportMetrics(store, built, now=runtime.now).refresh)

    def _add(self, user_backends: "Iterable[Backend]", providers: "Providers") -> None:
        try:
            for backend in self._all(user_backends):
                source = self._runtime if backend is self.otel else None
                self._added.append(self._hub.add_backend(backend, source=source))
        except NissaError:
            for name in self._added:
                self._hub.remove_backend(name)
            self._runtime.readback.close(1.0)
            providers.close(1.0)
            raise

    def _all(self, user_backends: "Iterable[Backend]") -> "Iterator[Backend]":
        console = self._runtime.config.console
        if console.enabled:
            yield ConsoleBackend(color=console.color, closing=self._closing)
        yield from user_backends
        yield self.otel

    def add_callback(self, callback: "Callable[[Finding], object]", *, cleared: bool) -> None:
        """Call a function for each finding from now on.

        Raises:
            ConfigurationError: The object cannot be called, or the hub is closed.
        """
        if not callable(callback):
            raise ConfigurationError(f"on_finding() needs a function of one argument, not {type(callback).__name__}.")
        number = sum(name.startswith(_CALLBACK) for name in self._added)
        name = f"{_CALLBACK}-{number + 1}" if number else _CALLBACK
        self._hub.add_backend(FindingCallback(name, callback, cleared=cleared))
        self._added.insert(-1, name)  # the OpenTelemetry backend stays last

    def remove(self, deadline: float) -> None:
        """Export what the backends have received, and remove them.

        Args:
            deadline: Time of `time.monotonic` until which the backends may export.
        """
        *others, last = self._added
        # A backend or callback that hangs leaves half of the time to the export.
        middle = (monotonic() + deadline) / 2
        for name in others:
            self._hub.remove_backend(name, max(0.0, middle - monotonic()))
        # Remove the OpenTelemetry backend last, so that it still exports faults of the other backends. A hanging
        # backend delays this, but does not prevent it.
        self._hub.flush(self._runtime.config.limits.exit_timeout_seconds / 4, besides=last)
        self._hub.remove_backend(last, max(0.0, deadline - monotonic()))
        self._hub.flush(max(0.0, deadline - monotonic()))
        self._save_undelivered()

    def _save_undelivered(self) -> None:
        """Write the lifecycle events that a backend has not processed to a file: the process may end now."""
        limit = self._runtime.config.limits.exit_timeout_seconds
        for name in self._added:
            events = self._hub.undelivered(name)
            left = max(self._hub.queue_sizes().get(name, 0), len(events))
            if left:
                _logger.warning(
                    "Backend %r has %d items left after %g s. %s; raise limits.exit_timeout_seconds.",
                    name,
                    left,
                    limit,
                    self._saved(name, events),
                )

    def _saved(self, name: str, events: "Sequence[TelemetryEvent]") -> str:
        """Save the events for a backend, if there are any, and return what will become of them and of the other items."""
        path = undelivered_path(self._folder, self._suffix, name)
        try:
            if events:
                save(events, path)
                return f"Its {len(events)} lifecycle events were written to {path}; if the process ends now, the others are lost"
        except (NissaError, OSError) as error:
            _logger.warning("Cannot save the lifecycle events of backend %r: %s", name, error)
        return "If the process ends now, they are lost"
