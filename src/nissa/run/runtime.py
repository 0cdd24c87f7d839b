"""Components of a run that its environments share, and the path of an event through them."""

import logging
import os
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch.nn.parameter import is_lazy

from nissa.analytics.blueprints import BlueprintAnalytics
from nissa.diagnostics.finding_events import events_of
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.errors import InvalidValueError, TransitionError, WatchError
from nissa.events import EventType, TelemetryEvent
from nissa.gradients.capture import Measures
from nissa.gradients.grouping import Grouping
from nissa.gradients.logged_values import submit
from nissa.gradients.overhead import OverheadWindow, ThreadCpuUsage
from nissa.gradients.readback import Readback
from nissa.gradients.sampling import OverheadBudget
from nissa.gradients.selection import Selection
from nissa.gradients.step_metadata import RowMetadata, SamplingPlan
from nissa.gradients.step_processor import StepProcessor
from nissa.gradients.steps import StepClock
from nissa.gradients.unwrapping import unwrap
from nissa.gradients.watch import Watch, check_model, check_watchable
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured
from nissa.kernels.moments import Layout, Thresholds
from nissa.seeds.lifecycle import SeedTable
from nissa.semconv.cardinality import CardinalityLimiter

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
        self.readback: Readback[RowMetadata] = Readback(
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
        self._measurements: list[Measurement] = []
        self.analytics = BlueprintAnalytics(config.analytics, seeds=self.table.slots.alive, sections=hub.sections)
        most = config.limits.max_scalars
        self.scalar_names = CardinalityLimiter(most, "names of logged scalars", "limits.max_scalars")
        self.item_kinds = CardinalityLimiter(most, "kinds of logged items", "limits.max_scalars")
        self.trackers: dict[str | None, DiagnosticTracker] = {}
        self._clocks: dict[str | None, StepClock] = {}
        self._thread_cpu_usage = ThreadCpuUsage(sections=hub.sections)
        self._watches: dict[int, tuple[str | None, Watch]] = {}
        self._warned_without_steps: set[str | None] = set()
        self._refused: set[str] = set()
        self._on_hub_closed = on_hub_closed
        self.sampling = SamplingPlan(
            every_n_steps=config.gradients.every_n_steps if config.gradients.enabled else 0,
            selection=Selection(config.gradients.layers),
            measures=_measures(config.gradients),
            budget=self._budget(config.overhead_budget),
        )

    # Called by the hub and its worker.

    def attach(self, wake: Callable[[], None]) -> None:
        """Store the function that wakes the polling worker."""
        self.readback.attach(wake)

    def poll(self) -> float:
        """Do the pending work of the run's worker between two items; return the seconds until the next call."""
        self._remove_finalized()
        pause = self.readback.poll()
        if not self.table.pending:
            return pause
        self.hub.publish(self._release_end_events)
        return min(pause, _RELEASE_SECONDS)

    def _release_end_events(self) -> Sequence[TelemetryEvent]:
        return self._count_in_analytics(self.table.release(self.now()))

    def on_event(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        """Apply an event to the state table, and count the resulting events in the analytics."""
        return self._count_in_analytics(self.table.apply(event))

    def _count_in_analytics(self, events: Sequence[TelemetryEvent]) -> Sequence[TelemetryEvent]:
        with self.error_boundary.guard("analytics"):
            for event in events:
                self.analytics.count(event)
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

    # Called by environments and seed handles: events.

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

    def emit_findings(self, findings: "Iterable[Finding]", env_id: str | None) -> None:
        """Emit the events of findings."""
        for finding in findings:
            for event in events_of(finding, env_id=env_id):
                self.deliver(event)

    def validated(self, env_id: str | None, accuracy: float | None, at: int) -> "list[SeedSnapshot]":
        """Record a validation in the state table, and return the affected seeds; see `SeedTable.validated`."""
        with self.hub.sections, self.hub.order:
            return self.table.validated(env_id, accuracy, at)

    # Called by environments: components that exist once per environment.

    def clock(self, env_id: str | None) -> StepClock:
        """Return the step clock of an environment, created at its first use."""
        return self._clocks.setdefault(env_id, StepClock(env_id, self.now, self._window()))

    def _window(self) -> OverheadWindow:
        return OverheadWindow(self.stopwatch, background=self._thread_cpu_usage.share)

    def _budget(self, share: float | None) -> OverheadBudget | None:
        return (
            None
            if share is None
            else OverheadBudget(share=share, background=self._thread_cpu_usage, error_boundary=self.error_boundary)
        )

    def tracker(self, env_id: str | None) -> DiagnosticTracker:
        """Return the diagnostic tracker of an environment, created at its first use."""
        # The worker's thread may call this at the same time. `setdefault` is atomic, so both threads use one tracker.
        return self.trackers.get(env_id) or self.trackers.setdefault(
            env_id, DiagnosticTracker(self.config, self.hub.sections)
        )

    # Called by environments: watches.

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
            raise WatchError("The run has ended; start a new run with nissa.start(), and call watch() of the new run.")
        check_model(model)
        unwrapped = unwrap(optimizer, scaler, hooks=hooks)
        optimizer, scaler = unwrapped.optimizer, unwrapped.scaler
        check_watchable(model, optimizer, scaler)
        self._remove_finalized()
        if self._is_watched(optimizer):
            raise WatchError(
                f"This {type(optimizer).__name__} optimizer is watched already; close() the handle that watch() returned "
                "before watching it again."
            )
        others = self._watches_of(env_id)
        if any(other.name == name for other in others):
            raise WatchError(
                "This environment watches several optimizers, so their streams need different names: "
                f"call watch(model, optimizer, name=...) with a name other than {name!r}."
            )
        self.sampling.selection.warn_unmatched(model, optimizer)
        watch = Watch(
            model,
            optimizer,
            name=name,
            primary=not any(other.primary for other in others),
            hooks=hooks,
            scaler=scaler,
            outer=unwrapped.outer,
            sampling=self.sampling,
            clock=self.clock(env_id),
            seeds=partial(self.table.slots.growing, env_id),
            readback=self.readback,
            error_boundary=self.error_boundary,
            on_close=self._remove,
            finalized=self.finalized,
        )
        self._watches[watch.key] = (env_id, watch)
        if watch.primary:
            self.analytics.set_host_parameters(sum(map(_size, model.parameters())), env_id)
        return watch

    def watched(self, env_id: str | None) -> "tuple[torch.nn.Module, torch.optim.Optimizer] | None":
        """Return the model and optimizer whose steps count as the environment's steps; None if nothing is watched."""
        return next((watch.watched for watch in self._watches_of(env_id) if watch.primary), None)

    def is_watching(self, env_id: str | None) -> bool:
        """Whether an environment has a watched optimizer, whose next step carries the values that are logged."""
        return any(env == env_id for env, _ in list(self._watches.values()))

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

    def stop_watching(self) -> None:
        """Close all watches, which removes their hooks."""
        self.export_all_logged()
        for env_id, clock in list(self._clocks.items()):
            if clock.has_pending_inputs and not self.hub.abandoned:
                self.warn_without_steps(env_id, "losses were logged")
        for _, watch in list(self._watches.values()):
            watch.close()

    def _watches_of(self, env_id: str | None) -> list[Watch]:
        # Iterate over a copy: the worker may remove the watch of a garbage-collected optimizer at the same time.
        watches = list(self._watches.values())
        return [watch for env, watch in watches if env == env_id and watch.optimizer is not None]

    def _is_watched(self, optimizer: "torch.optim.Optimizer") -> bool:
        # Compare the objects as well: the new optimizer may have the id of a freed one whose watch is not removed yet.
        _, watch = self._watches.get(id(optimizer), (None, None))
        return watch is not None and watch.optimizer is optimizer

    def _remove_finalized(self) -> None:
        while self.finalized:
            with suppress(IndexError):  # another thread removed the last one
                self._remove(self.finalized.popleft())

    def _remove(self, closed: Watch) -> None:
        env_id, watch = self._watches.get(closed.key, (None, None))
        if watch is not closed:  # removed already
            return
        del self._watches[closed.key]
        self.step_processor.forget(env_id, closed.name)
        closed.schedule.close()
        self.tracker(env_id).rules.forget(closed.name)
        remaining = self._watches_of(env_id)
        if closed.primary and remaining:  # one watch must continue to count the environment's steps
            remaining[0].primary = True

    def refuse(self, call: str, reason: str) -> None:
        """Refuse a value that the training loop has passed; it is absent, which is counted, and logged once per call.

        Raises:
            InvalidValueError: The run is strict.
        """
        if self.strict:
            raise InvalidValueError(f"{call}: {reason}")
        self.hub.count_rejection("invalid_value")
        if call not in self._refused:
            self._refused.add(call)
            _logger.warning("%s: %s The value is absent; further ones are only counted.", call, reason)

    def warn_without_steps(self, env_id: str | None, reason: str) -> None:
        """Log once per environment that its watched optimizers have made no step, although steps were expected."""
        watches = self._watches_of(env_id)
        if not watches or env_id in self._warned_without_steps or any(each.has_seen_a_step for each in watches):
            return
        self._warned_without_steps.add(env_id)
        names = ", ".join(sorted({type(each.optimizer).__name__ for each in watches}))
        _logger.warning(
            "No step of the watched optimizer (%s) was seen, although %s: it is not the one that the training loop steps, "
            "or its step() runs no hooks. Pass the optimizer whose step() changes the weights to watch(), or watch with "
            "hooks=False and mark each step with `with handle.step():`.",
            names,
            reason,
        )

    # Called by the readback, on the worker's thread.

    def _deliver_rows(self, rows: "list[tuple[RowMetadata, list[NDArray[np.generic]]]]") -> None:
        """Convert rows on the host to measurements, then apply the rules to them; runs on the worker's thread."""
        for metadata, arrays in rows:
            with self.error_boundary.guard("gradient readback"):
                self.step_processor(metadata, arrays)
        measurements, self._measurements = self._measurements, []
        with self.error_boundary.guard("rules"):
            self._apply_rules(measurements)

    def _record(self, measurement: Measurement) -> None:
        self.hub.record(measurement)
        self._measurements.append(measurement)

    def _apply_rules(self, measurements: Sequence[Measurement]) -> None:
        """Apply the rules to measurements, and emit the findings in the order of their time."""
        steps: defaultdict[str | None, list[StepMeasured]] = defaultdict(list)
        samples: defaultdict[str | None, list[GradientsMeasured]] = defaultdict(list)
        for measurement in measurements:
            if isinstance(measurement, StepMeasured):
                steps[measurement.env_id].append(measurement)
            elif isinstance(measurement, GradientsMeasured):
                samples[measurement.env_id].append(measurement)
        findings: list[tuple[str | None, Finding]] = []
        for env_id in {**steps, **samples}:
            rules = self.tracker(env_id).rules
            findings += [(env_id, finding) for finding in rules.judge(steps[env_id], samples[env_id])]
        for env_id, finding in sorted(findings, key=lambda pair: pair[1].time_unix_nano):
            self.emit_findings([finding], env_id)


def _size(parameter: "torch.Tensor") -> int:
    """Return the number of elements; 0 for a parameter of a lazy module, which has no shape before the first batch."""
    return 0 if is_lazy(parameter) else parameter.numel()


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
