"""Components of a run that its environments share, and the path of an event through them."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from nissa.analytics.blueprints import BlueprintAnalytics
from nissa.analytics.lives import LIFE_EVENTS
from nissa.diagnostics.finding_events import events_of
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.errors import InvalidValueError, NissaError, TransitionError
from nissa.events import EventType, TelemetryEvent
from nissa.gradients.logged_values import submit
from nissa.gradients.overhead import OverheadWindow, ThreadCpuUsage
from nissa.gradients.steps import StepClock
from nissa.hub.plain_data import PayloadLimits
from nissa.printable import printable
from nissa.run.replicas import RunReplicas
from nissa.run.row_processing import RowProcessor
from nissa.run.sampling_settings import sampling_plan
from nissa.run.watches import Watches
from nissa.seeds.lifecycle import SeedTable
from nissa.semconv.cardinality import CardinalityLimiter

if TYPE_CHECKING:
    from nissa.config import TelemetryConfig
    from nissa.diagnostics.finding import Finding
    from nissa.events import SeedSnapshot, SpanIds
    from nissa.hub.hub import NissaHub

_logger = logging.getLogger("nissa")

_RELEASE_SECONDS: Final = 0.25
"""Pause between two checks for delayed end events of seeds that are due."""


class Runtime:
    """Shared components of a run; the listener of its hub.

    Args:
        config: Settings of the run.
        hub: Hub that events pass through.
        run_id: Id of the run, the same on all ranks.
        now: Wall clock, nanoseconds since the Unix epoch.
        on_hub_closed: Called when the hub is closed while the run is active.
    """

    def __init__(
        self,
        config: "TelemetryConfig",
        hub: "NissaHub",
        *,
        run_id: str,
        now: Callable[[], int],
        on_hub_closed: Callable[[], None],
    ) -> None:
        self.config = config
        self.hub = hub
        self.now = now
        self.error_boundary = hub.error_boundary
        self.stopwatch = hub.stopwatch
        self.closed = False
        self.table = SeedTable(config.limits.max_seeds)
        _apply_limits(hub, config)
        self.strict = _strict(config)
        self.rows = RowProcessor(config, hub, now=now, tracker=self.tracker, emit_findings=self.emit_findings)
        self.step_processor = self.rows.step_processor
        self.readback = self.rows.readback
        self.analytics = BlueprintAnalytics(config.analytics, seeds=self.table.slots.alive, sections=hub.sections)
        most = config.limits.max_scalars
        self.scalar_names = CardinalityLimiter(most, "names of logged scalars", "limits.max_scalars")
        self.item_kinds = CardinalityLimiter(most, "kinds of logged items", "limits.max_scalars")
        self.trackers: dict[str | None, DiagnosticTracker] = {}
        self._clocks: dict[str | None, StepClock] = {}
        self._thread_cpu_usage = ThreadCpuUsage(sections=hub.sections)
        self.replicas = RunReplicas(run_id, config, hub.error_boundary)
        self.watches = Watches(self)
        # Number and span of the open epoch of each environment; and of those that a checkpoint was saved in.
        self.open_epochs: dict[str | None, tuple[int, SpanIds]] = {}
        self.epoch_threads: dict[str | None, int] = {}  # thread that has begun the last epoch
        self.resumed_epochs: dict[str | None, tuple[int, SpanIds]] = {}
        self._refused: set[str] = set()
        self._on_hub_closed = on_hub_closed
        self.sampling = sampling_plan(config, self._thread_cpu_usage, self.error_boundary)

    # Called by the hub and its worker.

    def attach(self, wake: Callable[[], None]) -> None:
        """Store the function that wakes the polling worker."""
        self.readback.attach(wake)
        self.replicas.attach(wake)

    def poll(self) -> float | None:
        """Do the pending work of the run's worker between two items.

        Return the seconds until the next call, or None until the worker is woken.
        """
        self.watches.remove_finalized()
        pause = self.readback.poll()
        if compared := self.replicas.drain():
            self.rows.compared(compared)
        if not self.table.pending:
            return pause
        self.hub.publish(self._release_end_events)
        return _RELEASE_SECONDS if pause is None else min(pause, _RELEASE_SECONDS)

    def _release_end_events(self) -> Sequence[TelemetryEvent]:
        return self._count_in_analytics(self.table.release(self.now()))

    def on_event(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        """Apply an event to the state table, and count the resulting events in the analytics."""
        return self._count_in_analytics(self.table.apply(event))

    def _count_in_analytics(self, events: Sequence[TelemetryEvent]) -> Sequence[TelemetryEvent]:
        for event in events:
            if event.event_type in LIFE_EVENTS:
                self._analyse(self.analytics.count, event)
        return events

    def _analyse(self, call: Callable[[TelemetryEvent], None], event: TelemetryEvent) -> None:
        """Pass an event to the analytics, inside an error boundary; without `Guard`, which takes as long as most calls."""
        try:
            call(event)
        except Exception as error:  # noqa: BLE001 - a fault of ours, which must not reach training
            self.error_boundary.fault("analytics", error)

    def after_dispatch(self, events: Sequence[TelemetryEvent]) -> None:
        """Log the events that analytics counted and those that were refused; raise for the latter in a strict run.

        Raises:
            TransitionError: An event was refused, and the run is strict.
        """
        for event in events:
            if event.event_type in LIFE_EVENTS:
                self._analyse(self.analytics.log, event)
            if event.refused is not None:
                _logger.warning("Refused %s of seed %r: %s", event.event_type, event.seed_id, event.refused)
                if self.strict:
                    raise TransitionError(event.refused)

    def close(self) -> None:
        """End the run because its hub is closing."""
        self._on_hub_closed()

    # Called by environments and seed handles: events.

    def send(self, event_type: EventType, **fields: Any) -> Sequence[TelemetryEvent]:
        """Emit a Nissa event with the current time; entries of ``data`` that are None are left out."""
        data = {key: value for key, value in fields.pop("data", {}).items() if value is not None}
        fields.setdefault("time_unix_nano", self.now())
        return self.deliver(TelemetryEvent(event_type, data=data, **fields))

    def deliver(self, event: TelemetryEvent, *, plain: bool = False) -> Sequence[TelemetryEvent]:
        """Pass a Nissa event to the hub, inside an error boundary; its data are bounded and its text is escaped.

        After the end of the run, the event is only applied to the state table, so that the seed handles of a training
        loop that outlives the run keep working.

        Args:
            event: The event.
            plain: Whether its data and text need no conversion, since they were checked.
        """
        hub = self.hub
        if not plain:
            event = hub.bounded(event)
        if self.closed:
            hub.count_rejection("run_ended")
            with hub.sections, hub.order:
                return self.table.apply(event)
        try:
            return hub.deliver(event)
        except NissaError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours, which must not reach training
            self.error_boundary.fault("hub", error)
            return ()

    def emit_findings(self, findings: "Iterable[Finding]", env_id: str | None) -> None:
        """Emit the events of findings, and pass the findings to the callbacks of ``on_finding``."""
        for finding in findings:
            self.hub.notify(replace(finding, env_id=env_id))
            for event in events_of(finding, env_id=env_id):
                self.deliver(event)

    def validated(self, env_id: str | None, accuracy: float | None, at: int) -> "list[SeedSnapshot]":
        """Record a validation in the state table, and return the affected seeds; see `SeedTable.validated`."""
        with self.hub.sections, self.hub.order:
            return self.table.validated(env_id, accuracy, at)

    def unreported(self, env_id: str | None) -> "list[SeedSnapshot]":
        """Return the living seeds of an environment, and those that ended since the last validation."""
        with self.hub.sections, self.hub.order:
            return [record.snapshot() for record in self.table.slots.unreported() if record.env_id == env_id]

    # Called by environments: components that exist once per environment.

    def clock(self, env_id: str | None) -> StepClock:
        """Return the step clock of an environment, created at its first use."""
        # `setdefault` is atomic, so that threads that create a clock at the same time share one.
        return self._clocks.get(env_id) or self._clocks.setdefault(env_id, self._new_clock(env_id))

    def _new_clock(self, env_id: str | None) -> StepClock:
        phases = self.error_boundary.guard("step phases") if self.config.step_phases else None
        return StepClock(env_id, self.now, self._window(), phases=phases)

    def _window(self) -> OverheadWindow:
        return OverheadWindow(self.stopwatch, background=self._thread_cpu_usage.share)

    def tracker(self, env_id: str | None) -> DiagnosticTracker:
        """Return the diagnostic tracker of an environment, created at its first use."""
        # The worker's thread may call this at the same time. `setdefault` is atomic, so both threads use one tracker.
        return self.trackers.get(env_id) or self.trackers.setdefault(
            env_id, DiagnosticTracker(self.config, self.hub.sections)
        )

    def export_logged(self, env_id: str | None) -> None:
        """Export the values that were logged since the last step, at the time of the newest call."""
        logged = self.clock(env_id).logged
        if not logged.pending or self.hub.abandoned:
            return
        if self.closed:
            self.hub.count_rejection("run_ended")
        with self.stopwatch.own, self.error_boundary.guard("logged values"):
            submit(logged, env_id, self.readback)

    def export_all_logged(self) -> None:
        """Export the logged values of all environments."""
        for env_id in list(self._clocks):
            self.export_logged(env_id)

    def compare_replicas(self, deadline: float) -> None:
        """Compare the last steps with other ranks, while rules of the watches exist; until a time at the latest."""
        if self.replicas.active and not self.hub.abandoned:
            self.readback.flush((deadline - monotonic()) / 2)
        self.replicas.close(deadline)

    def stop_watching(self) -> None:
        """Close all watches, which removes their hooks."""
        self.export_all_logged()
        for env_id, clock in list(self._clocks.items()):
            if clock.has_pending_inputs and not self.hub.abandoned:
                self.watches.warn_without_steps(env_id, "losses were logged")
        if self.hub.abandoned:
            self.readback.abandon()
        self.watches.close()

    def refuse(self, call: str, reason: str) -> None:
        """Refuse a value that the training loop has passed; it is absent, which is counted, and logged once per call.

        Raises:
            InvalidValueError: The run is strict.
        """
        reason = printable(reason)
        if self.strict:
            raise InvalidValueError(f"{call}: {reason}")
        self.hub.count_rejection("invalid_value")
        if call not in self._refused:
            self._refused.add(call)
            _logger.warning("%s: %s The value is absent; further ones are only counted.", call, reason)


def _apply_limits(hub: "NissaHub", config: "TelemetryConfig") -> None:
    limits = config.limits
    hub.resize(
        queue_size=limits.queue_size,
        lifecycle_queue_size=limits.lifecycle_queue_size,
        payload_limits=PayloadLimits(limits.payload_items, limits.payload_depth, limits.payload_characters),
    )


def _strict(config: "TelemetryConfig") -> bool:
    return "PYTEST_CURRENT_TEST" in os.environ and "pytest" in sys.modules if config.strict is None else config.strict
