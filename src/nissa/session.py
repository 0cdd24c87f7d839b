"""What a run consists of: the parts that its environments share, and how an event passes them."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nissa.analytics.blueprints import BlueprintAnalytics
from nissa.diagnostics.blocks import SampleBlock, StepBlock
from nissa.diagnostics.telling import events_of
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.errors import TransitionError, WatchError
from nissa.events import EventType, TelemetryEvent
from nissa.gradients.background import Background
from nissa.gradients.capture import Measures
from nissa.gradients.delivery import StepDelivery
from nissa.gradients.grouping import Grouping
from nissa.gradients.notes import Sampling, StepNote
from nissa.gradients.overhead import Window
from nissa.gradients.pace import Budget
from nissa.gradients.readback import Reader
from nissa.gradients.selection import Selection
from nissa.gradients.steps import StepClock
from nissa.gradients.watch import Watch
from nissa.gradients.watchable import check_watchable
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured
from nissa.kernels.moments import Layout, Thresholds
from nissa.seeds.growing import SeedModules
from nissa.seeds.lifecycle import SeedTable

if TYPE_CHECKING:
    import torch

    from nissa.diagnostics.finding import Finding
    from nissa.hub.hub import NissaHub
    from nissa.profiles import GradientConfig, TelemetryConfig

_logger = logging.getLogger("nissa")


class Session:
    """The parts of a run, wired; listens on the hub.

    Args:
        config: What to measure.
        hub: Where events pass.
        now: Wall clock, nanoseconds since the Unix epoch.
        on_hub_closed: Called when somebody closes the hub under the run.
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
        self.containment = hub.containment
        self.stopwatch = hub.stopwatch
        self.closed = False
        self.table = SeedTable(config.limits.max_seeds)
        self.modules = SeedModules(self.table.slots)
        self.strict = _strict(config)
        self.delivery = StepDelivery(
            self._record, most=config.gradients.max_parameters, top=config.gradients.top_k, now=now
        )
        self.reader: Reader[StepNote] = Reader(
            self.delivery, capacity=config.limits.readback_queue_size, containment=self.containment
        )
        self.analytics = BlueprintAnalytics(config.analytics)
        self.trackers: dict[str | None, DiagnosticTracker] = {}
        self._clocks: dict[str | None, StepClock] = {}
        self._background = Background()
        self._watches: dict[int, tuple[str | None, Watch]] = {}
        self._on_hub_closed = on_hub_closed
        self.sampling = Sampling(
            every_n_steps=config.gradients.every_n_steps if config.gradients.enabled else 0,
            selection=Selection(config.gradients.layers),
            measures=_measures(config.gradients),
            budget=self._budget(config.overhead_budget),
        )

    # What the hub calls.

    def admit(self, event: TelemetryEvent) -> Sequence[TelemetryEvent]:
        """Pass an event through the state table, and let analytics count what came of it."""
        events = self.table.apply(event)
        with self.containment.guard("analytics"):
            for each in events:
                self.analytics.emit(each)
        return events

    def settle(self, events: Sequence[TelemetryEvent]) -> None:
        """Log what was refused, and raise it where the run is strict."""
        for event in events:
            if event.refused is not None:
                _logger.warning("Refused %s of seed %r: %s", event.event_type, event.seed_id, event.refused)
                if self.strict:
                    raise TransitionError(event.refused)

    def close(self) -> None:
        """End the run, because the hub ends."""
        self._on_hub_closed()

    # What environments call.

    def send(self, event_type: EventType, **fields: Any) -> list[TelemetryEvent]:
        """Emit an event of ours, now; entries of its data that are None are left out."""
        data = {key: value for key, value in fields.pop("data", {}).items() if value is not None}
        fields.setdefault("time_unix_nano", self.now())
        return self.deliver(TelemetryEvent(event_type, data=data, **fields))

    def deliver(self, event: TelemetryEvent) -> list[TelemetryEvent]:
        """Pass an event of ours to the hub, contained.

        After the end of the run only the state table hears of it: a training loop that outlives the run goes on.
        """
        if self.closed:
            self.hub.rejections["run_ended"] += 1
            return self.table.apply(event)
        with self.containment.guard("hub"):
            return self.hub.deliver(event)
        return []

    def clock(self, env_id: str | None) -> StepClock:
        """Return an environment's clock."""
        return self._clocks.setdefault(env_id, StepClock(env_id, self.now, self._window()))

    def _window(self) -> Window:
        return Window(self.stopwatch, background=self._background.share)

    def _budget(self, share: float | None) -> Budget | None:
        return None if share is None else Budget(share=share, background=self._background, containment=self.containment)

    def tracker(self, env_id: str | None) -> DiagnosticTracker:
        """Return an environment's history."""
        # The reader's thread may ask at the same time; whoever is first, all get the same one.
        return self.trackers.get(env_id) or self.trackers.setdefault(env_id, DiagnosticTracker(self.config))

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
            WatchError: They cannot be watched together, the optimizer is watched already, or the run has ended.
        """
        if self.closed:
            raise WatchError("The run has ended; start another with nissa.start() and watch from there.")
        check_watchable(model, optimizer, scaler)
        if id(optimizer) in self._watches:
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
            seeds=partial(self.modules.growing, env_id),
            reader=self.reader,
            containment=self.containment,
            on_close=self._forget,
        )
        self._watches[watch.key] = (env_id, watch)
        if watch.primary:
            self.analytics.set_host_parameters(sum(each.numel() for each in model.parameters()), env_id)
        return watch

    def watched(self, env_id: str | None) -> "tuple[torch.nn.Module, torch.optim.Optimizer] | None":
        """Return the model and optimizer whose steps are an environment's steps; None where nothing is watched."""
        return next((watch.watched for watch in self._watches_of(env_id) if watch.primary), None)

    def tell(self, findings: "Iterable[Finding]", env_id: str | None) -> None:
        """Send the events of what rules found."""
        for finding in findings:
            up = self.tracker(env_id).rules.flags.get(finding.name, False)
            for event in events_of(finding, env_id=env_id, up=up):
                self.deliver(event)

    def _watches_of(self, env_id: str | None) -> list[Watch]:
        # A copy, since garbage collection may take an optimizer and with it its entry at any time.
        return [watch for env, watch in list(self._watches.values()) if env == env_id]

    def _forget(self, closed: Watch) -> None:
        env_id, _ = self._watches.pop(closed.key, (None, None))
        self.delivery.forget(env_id, closed.name)
        closed.pace.close()
        self.tracker(env_id).rules.forget(closed.name)
        left = self._watches_of(env_id)
        if closed.primary and left:  # else nobody would count the environment's steps any more
            left[0].primary = True

    def stop_watching(self) -> None:
        """Leave no hook behind."""
        for _, watch in list(self._watches.values()):
            watch.close()

    def _record(self, measurement: Measurement) -> None:
        self.hub.record(measurement)
        if isinstance(measurement, GradientsMeasured):
            self.tell(self.tracker(measurement.env_id).rules.samples(SampleBlock.of([measurement])), measurement.env_id)
        elif isinstance(measurement, StepMeasured):
            self.tell(self.tracker(measurement.env_id).rules.steps(StepBlock.of([measurement])), measurement.env_id)


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
