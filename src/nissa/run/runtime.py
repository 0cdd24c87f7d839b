"""Components of a run that its environments share, and the path of an event through them."""

import logging
import os
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nissa.analytics.blueprints import BlueprintAnalytics
from nissa.diagnostics.finding_events import events_of
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.errors import TransitionError, WatchError
from nissa.events import EventType, TelemetryEvent
from nissa.gradients.capture import Measures
from nissa.gradients.grouping import Grouping
from nissa.gradients.overhead import OverheadWindow, ThreadCpuUsage
from nissa.gradients.readback import Readback
from nissa.gradients.sampling import OverheadBudget
from nissa.gradients.selection import Selection
from nissa.gradients.step_metadata import SamplingPlan, StepMetadata
from nissa.gradients.step_processor import StepProcessor
from nissa.gradients.steps import StepClock
from nissa.gradients.watch import Watch, check_watchable
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured
from nissa.kernels.moments import Layout, Thresholds
from nissa.seeds.lifecycle import SeedTable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from nissa.config import GradientConfig, TelemetryConfig
    from nissa.diagnostics.finding import Finding
    from nissa.events import SeedSnapshot
    from nissa.hub.hub import NissaHub

_logger = logging.getLogger("nissa")

_RELEASE_SECONDS: Final = 0.25
"""Pause between two checks for delayed end events of seeds that are due."""


class Runtime:
    """Shared components of a run; the listener of its hub.

    Args:
        config: Settings of the run.
        hub: Hub that events pass through.
        now: Wall clock, nanoseconds since the Unix epoch.
        on_hub_closed: Called when the hub is closed while the run is active.
    """

    def __init__(
        self,
        config: "TelemetryConfig",
        hub: "NissaHub",
        *,
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
        self.strict = _strict(config)
        self.step_processor = StepProcessor(
            self._record, most=config.gradients.max_parameters, top=config.gradients.top_k, now=now
        )
        self.readback: Readback[StepMetadata] = Readback(
            self._deliver_rows,
            capacity=config.limits.readback_queue_size,
            error_boundary=self.error_boundary,
            environment_of=lambda metadata: metadata.env_id,
        )
        # Queue of watches whose optimizers were garbage-collected. A finalizer can run between any two bytecodes, even
        # inside a critical section, so it must not acquire a lock and only appends here. `poll` and `watch` remove the
        # watches.
        self.finalized: deque[Watch] = deque()
        # Measurements of the rows being delivered; buffered so that the rules process them in one block per watch.
        self._measured: list[Measurement] = []
        self.analytics = BlueprintAnalytics(config.analytics, seeds=self.table.slots.alive, sections=hub.sections)
        self.trackers: dict[str | None, DiagnosticTracker] = {}
        self._clocks: dict[str | None, StepClock] = {}
        self._background = ThreadCpuUsage(sections=hub.sections)
        self._watches: dict[int, tuple[str | None, Watch]] = {}
        self._on_hub_closed = on_hub_closed
        self.sampling = SamplingPlan(
            every_n_steps=config.gradients.every_n_steps if config.gradients.enabled else 0,
            selection=Selection(config.gradients.layers),
            measures=_measures(config.gradients),
            budget=self._budget(config.overhead_budget),
        )

    # Called by the hub.

    def attach(self, wake: Callable[[], None]) -> None:
        """Store the function that wakes the polling worker."""
        self.readback.attach(wake)

    def poll(self) -> float:
        """Do the pending work of the run's worker between two items; return the seconds until the next call."""
        self._forget_finalized()
        pause = self.readback.poll()
        if not self.table.pending:
            return pause
        self.hub.publish(self._release)
        return min(pause, _RELEASE_SECONDS)

    def _release(self) -> Sequence[TelemetryEvent]:
        return self._counted(self.table.release(self.now()))

    def on_event(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        """Apply an event to the state table, and count the resulting events in the analytics."""
        return self._counted(self.table.apply(event))

    def _counted(self, events: Sequence[TelemetryEvent]) -> Sequence[TelemetryEvent]:
        with self.error_boundary.guard("analytics"):
            for each in events:
                self.analytics.count(each)
        return events

    def after_dispatch(self, events: Sequence[TelemetryEvent]) -> None:
        """Log the events that analytics counted and those that were refused; raise for the latter in a strict run.

        Raises:
            TransitionError: An event was refused, and the run is strict.
        """
        for event in events:
            with self.error_boundary.guard("analytics"):
                self.analytics.log(event)
            if event.refused is not None:
                _logger.warning("Refused %s of seed %r: %s", event.event_type, event.seed_id, event.refused)
                if self.strict:
                    raise TransitionError(event.refused)

    def close(self) -> None:
        """End the run because its hub is closing."""
        self._on_hub_closed()

    # Called by environments.

    def send(self, event_type: EventType, **fields: Any) -> list[TelemetryEvent]:
        """Emit a Nissa event with the current time; entries of ``data`` that are None are left out."""
        data = {key: value for key, value in fields.pop("data", {}).items() if value is not None}
        fields.setdefault("time_unix_nano", self.now())
        return self.deliver(TelemetryEvent(event_type, data=data, **fields))

    def deliver(self, event: TelemetryEvent) -> list[TelemetryEvent]:
        """Pass a Nissa event to the hub, inside an error boundary.

        After the end of the run, the event is only applied to the state table, so that the seed handles of a training
        loop that outlives the run keep working.
        """
        if self.closed:
            self.hub.count_rejection("run_ended")
            with self.hub.sections, self.hub.order:
                return self.table.apply(event)
        with self.error_boundary.guard("hub"):
            return self.hub.deliver(event)
        return []

    def validated(self, env_id: str | None, accuracy: float | None, at: int) -> "list[SeedSnapshot]":
        """Record a validation in the state table, and return the affected seeds; see `SeedTable.validated`."""
        with self.hub.sections, self.hub.order:
            return self.table.validated(env_id, accuracy, at)

    def clock(self, env_id: str | None) -> StepClock:
        """Return the step clock of an environment, created at its first use."""
        return self._clocks.setdefault(env_id, StepClock(env_id, self.now, self._window()))

    def _window(self) -> OverheadWindow:
        return OverheadWindow(self.stopwatch, background=self._background.share)

    def _budget(self, share: float | None) -> OverheadBudget | None:
        return (
            None
            if share is None
            else OverheadBudget(share=share, background=self._background, error_boundary=self.error_boundary)
        )

    def tracker(self, env_id: str | None) -> DiagnosticTracker:
        """Return the diagnostic tracker of an environment, created at its first use."""
        # The worker's thread may call this at the same time. `setdefault` is atomic, so both threads use one tracker.
        return self.trackers.get(env_id) or self.trackers.setdefault(
            env_id, DiagnosticTracker(self.config, self.hub.sections)
        )

    def watch(
        self,
        env_id: str | None,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        name: str | None,
        scaler: "torch.amp.GradScaler | None",
        hooks: bool,
    ) -> Watch:
        """Watch an optimizer for an environment.

        Raises:
            WatchError: The model and the optimizer cannot be watched together, the optimizer is watched already, or
                the run has ended.
        """
        if self.closed:
            raise WatchError("The run has ended; start another with nissa.start() and watch from there.")
        check_watchable(model, optimizer, scaler)
        self._forget_finalized()
        if self._is_watched(optimizer):
            raise WatchError(
                f"This {type(optimizer).__name__} optimizer is watched already; close() the handle that watch() returned "
                "before watching it again."
            )
        here = self._watches_of(env_id)
        if any(watch.name == name for watch in here):
            raise WatchError(
                "Several optimizers are watched here, so their streams need names that differ: "
                f"call watch(model, optimizer, name=...) with a name other than {name!r}."
            )
        self.sampling.selection.warn_unmatched(model, optimizer)
        watch = Watch(
            model,
            optimizer,
            name=name,
            primary=not any(watch.primary for watch in here),
            hooks=hooks,
            scaler=scaler,
            sampling=self.sampling,
            clock=self.clock(env_id),
            seeds=partial(self.table.slots.growing, env_id),
            readback=self.readback,
            error_boundary=self.error_boundary,
            on_close=self._forget,
            finalized=self.finalized,
        )
        self._watches[watch.key] = (env_id, watch)
        if watch.primary:
            self.analytics.set_host_parameters(sum(each.numel() for each in model.parameters()), env_id)
        return watch

    def watched(self, env_id: str | None) -> "tuple[torch.nn.Module, torch.optim.Optimizer] | None":
        """Return the model and optimizer whose steps count as the environment's steps; None if nothing is watched."""
        return next((watch.watched for watch in self._watches_of(env_id) if watch.primary), None)

    def emit_findings(self, findings: "Iterable[Finding]", env_id: str | None) -> None:
        """Emit the events of findings."""
        for finding in findings:
            for event in events_of(finding, env_id=env_id):
                self.deliver(event)

    def _watches_of(self, env_id: str | None) -> list[Watch]:
        # Iterate over a copy: the worker may remove the watch of a garbage-collected optimizer at the same time.
        watches = list(self._watches.values())
        return [watch for env, watch in watches if env == env_id and watch.optimizer is not None]

    def _is_watched(self, optimizer: "torch.optim.Optimizer") -> bool:
        # Compare the objects as well: the new optimizer may have the id of a freed one whose watch is not removed yet.
        _, watch = self._watches.get(id(optimizer), (None, None))
        return watch is not None and watch.optimizer is optimizer

    def _forget_finalized(self) -> None:
        while self.finalized:
            with suppress(IndexError):  # another thread removed the last one
                self._forget(self.finalized.popleft())

    def _forget(self, closed: Watch) -> None:
        env_id, watch = self._watches.get(closed.key, (None, None))
        if watch is not closed:  # removed already
            return
        del self._watches[closed.key]
        self.step_processor.forget(env_id, closed.name)
        closed.schedule.close()
        self.tracker(env_id).rules.forget(closed.name)
        left = self._watches_of(env_id)
        if closed.primary and left:  # the environment's steps must still be counted by one watch
            left[0].primary = True

    def stop_watching(self) -> None:
        """Close all watches, which removes their hooks."""
        for _, watch in list(self._watches.values()):
            watch.close()

    def _deliver_rows(self, rows: "list[tuple[StepMetadata, list[NDArray[np.generic]]]]") -> None:
        """Convert rows on the host to measurements, then apply the rules to them; runs on the worker's thread."""
        for metadata, arrays in rows:
            with self.error_boundary.guard("gradient readback"):
                self.step_processor(metadata, arrays)
        measured, self._measured = self._measured, []
        with self.error_boundary.guard("rules"):
            self._judge(measured)

    def _record(self, measurement: Measurement) -> None:
        self.hub.record(measurement)
        self._measured.append(measurement)

    def _judge(self, measured: Sequence[Measurement]) -> None:
        """Apply the rules to measurements, and emit the findings in the order of their time."""
        steps: defaultdict[str | None, list[StepMeasured]] = defaultdict(list)
        samples: defaultdict[str | None, list[GradientsMeasured]] = defaultdict(list)
        for each in measured:
            if isinstance(each, StepMeasured):
                steps[each.env_id].append(each)
            elif isinstance(each, GradientsMeasured):
                samples[each.env_id].append(each)
        found: list[tuple[str | None, Finding]] = []
        for env_id in {**steps, **samples}:
            rules = self.tracker(env_id).rules
            found += [(env_id, finding) for finding in rules.judge(steps[env_id], samples[env_id])]
        for env_id, finding in sorted(found, key=lambda each: each[1].time_unix_nano):
            self.emit_findings([finding], env_id)


def _measures(gradients: "GradientConfig") -> Measures:
    return Measures(
        layout=Layout() if gradients.histogram else Layout(buckets=None),
        thresholds=Thresholds(gradients.vanishing_threshold, gradients.exploding_threshold),
        weights=gradients.weight_norms or gradients.update_ratios,
        updates=gradients.update_ratios,
        grouping=Grouping(gradients.group_by),
        ranks=gradients.ranks,
    )


def _strict(config: "TelemetryConfig") -> bool:
    return "PYTEST_CURRENT_TEST" in os.environ and "pytest" in sys.modules if config.strict is None else config.strict
