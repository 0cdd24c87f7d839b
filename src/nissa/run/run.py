"""Telemetry of one training run, from `nissa.start` to its end."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, overload
from weakref import WeakKeyDictionary, ref

from nissa.config import TelemetryConfig
from nissa.diagnostics.brief import DecisionBrief
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.errors import ConfigurationError
from nissa.events import EventType
from nissa.hub.hub import NissaHub
from nissa.otel.setup import Providers
from nissa.run.agreement import RunStart
from nissa.run.backends import RunBackends
from nissa.run.environment import Environment
from nissa.run.exit_status import RunEnd
from nissa.run.identity import environment_id
from nissa.run.log_capture import LogCapture
from nissa.run.process_description import ProcessDescription
from nissa.run.runtime import Runtime
from nissa.run.shutdown import ShutdownHook
from nissa.run.state import ResumedRun, run_state, seed_states
from nissa.seeds.seed import Seed

if TYPE_CHECKING:
    import torch

    from nissa.analytics.blueprints import BlueprintAnalytics
    from nissa.diagnostics.finding import Finding
    from nissa.diagnostics.meter import Measured, ValidationMeter
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.distributed.replica_groups import Replicas
    from nissa.gradients.watch import Watch
    from nissa.gradients.watch_group import WatchGroup
    from nissa.hub.backend import Backend
    from nissa.run.run_config import Attribute

_logger = logging.getLogger("nissa")

_DESCRIPTION_SECONDS: Final = 1.0
"""Maximum time at the end of a short run for the description of its process."""

_AGREEMENT_SECONDS: Final = 0.5
"""Maximum time at the end of a run for recording the end in the store of the process group."""

active_runs: WeakKeyDictionary[NissaHub, "ref[Run]"] = WeakKeyDictionary()
"""Active run of each hub, by which a lost handle is found again; the hub itself keeps the run alive."""


def active_run(hub: NissaHub) -> "Run | None":
    """Return the active run of a hub, or None."""
    run = reference() if (reference := active_runs.get(hub)) is not None else None
    return None if run is None or run.closed else run


class Run:
    """A training run and its telemetry, returned by `nissa.start`; best used in a ``with`` statement.

    Every run has a default environment, and the run itself has all methods of `Environment`: they act on the
    default environment. A run with one model needs only ``run.watch``, ``run.epoch``, ``run.log_loss``,
    ``run.validate`` and ``run.germinate``.

    Attributes:
        env_id: Id of the default environment: None.
        run_id: Identity of the run, on its resource and spans.
        config: Settings of the run.
        directory: Absolute path of the run's files, None if telemetry is exported elsewhere.
        destination: Destination of the telemetry, as text for people.
        replaceable: Whether the next `nissa.start` ends this run: one that the script itself has not started.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        hub: NissaHub,
        providers: Providers,
        *,
        start: RunStart,
        backends: "Iterable[Backend]",
        clock: Callable[[], int],
        hyperparameters: "Mapping[str, Attribute]" = MappingProxyType({}),
    ) -> None:
        self.run_id = run_id = start.identity.run_id
        self.config = config
        self.directory = providers.folder
        self.destination = providers.origin
        self._hub = hub
        self._start = start
        self.replaceable = False
        self._closed = False
        self._pid = os.getpid()
        self._environments: dict[str, Environment] = {}
        self._runtime = Runtime(config, hub, run_id=run_id, now=clock, on_hub_closed=self.close)
        self._default = Environment(self._runtime, None)
        self.env_id = self._default.env_id
        self._backends = RunBackends(
            self._runtime, providers, run_id=run_id, rank=start.rank, user_backends=backends, trace=start.trace
        )
        hub.listen(self._runtime)
        # A signal may end the run as soon as the hook exists.
        self._description: ProcessDescription | None = None
        self._log_capture: LogCapture | None = None
        self._shutdown_hook = ShutdownHook(self._end, hub.sections, config.limits.exit_timeout_seconds)
        active_runs[hub] = ref(self)
        _abandon_in_children(self)
        data = {"run_id": run_id, "profile": config.profile_name, "rank": start.rank.rank}
        data |= {"world_size": start.rank.world_size, "attempt": start.resumed.attempt if start.resumed else None}
        self._send(EventType.TRAINING_STARTED, data=data | {"run_config": dict(hyperparameters) or None})
        if config.process.describe:
            self._description = ProcessDescription(self._runtime)
        self._log_capture = LogCapture(self._runtime)
        if start.resumed is not None:
            self._resume(start.resumed)

    def _resume(self, resumed: ResumedRun) -> None:
        self._runtime.watches.resumed_steps.update(resumed.steps)
        self._runtime.resumed_epochs.update(resumed.epochs)
        for state in resumed.seeds:
            owner = self._default if state["env_id"] is None else self.environment(state["env_id"])
            owner.resume_seed(state)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run. An exception passes through; its type is recorded on the spans that it interrupts."""
        self._end(RunEnd() if error is None else RunEnd.of_exception(error))

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return self._closed

    @property
    def hub(self) -> NissaHub:
        """Hub that all events of the run pass through."""
        return self._hub

    def environment(self, env_id: int | str) -> Environment:
        """Return the environment with an id, created at its first use. Parallel environments share only the run."""
        key = environment_id(env_id)
        if key not in self._environments:
            self._environments[key] = Environment(self._runtime, key)
        return self._environments[key]

    @property
    def environments(self) -> Mapping[str, Environment]:
        """Environments created so far, by id."""
        return dict(self._environments)

    @property
    def analytics(self) -> "BlueprintAnalytics":
        """Outcomes of the seeds of all environments, by blueprint. Events are counted before ``emit`` returns."""
        return self._runtime.analytics

    def seed_states(self) -> list[dict[str, Any]]:
        """Return the state of every unfinished seed of all environments, for a checkpoint."""
        return seed_states(self._runtime)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run for a checkpoint; ``nissa.start(resume=state)`` continues the run from it.

        It contains run id, step counts, open epochs and seeds, and the trace context. The call waits for the statistics of
        the last step, at most ``limits.validation_wait_seconds``, because only they tell which steps loss scaling skipped.

        Returns:
            Numbers, text, lists and dicts, which JSON and ``torch.save`` can store.
        """
        self._runtime.readback.flush(self.config.limits.validation_wait_seconds)
        resumed = self._start.resumed
        return run_state(self._runtime, self.run_id, attempt=resumed.attempt if resumed else 0, trace=self._start.trace)

    def on_finding(self, callback: "Callable[[Finding], object]", *, cleared: bool = False) -> None:
        """Call a function for each finding of all environments, on a thread of its own, until the end of the run.

        The function may be slow, wait, or call methods of the run. Its exceptions do not reach the training loop: the first
        one is logged, and all are counted. If it falls behind by more than ``limits.queue_size`` findings, the oldest are
        dropped and counted. To stop training, set a flag that the loop checks.

        Args:
            callback: Function of one `Finding`: name, layers, numbers, what was seen and what to try.
            cleared: Call it for the end of a trouble as well; ``finding.raised`` is False then.

        Raises:
            ConfigurationError: The object cannot be called, or the run has ended.
        """
        if self._closed:
            raise ConfigurationError("The run has ended, so that there are no further findings; start a new one.")
        self._backends.add_callback(callback, cleared=cleared)

    def flush(self, timeout: float = 5.0) -> bool:
        """Export everything measured so far. Return whether this finished within ``timeout`` seconds."""
        deadline = monotonic() + timeout
        self._runtime.export_all_logged()
        rows_delivered = self._runtime.readback.flush(timeout)
        return self._hub.flush(max(0.0, deadline - monotonic())) and rows_delivered

    def close(self) -> None:
        """End the run: export everything, and remove all hooks and backends. Takes at most the exit timeout."""
        self._end(RunEnd())

    # Methods of the default environment. A test compares their signatures with those of `Environment`.

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Mapping[torch.nn.Parameter, torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Mapping[str, torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "WatchGroup": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Iterable[torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch | WatchGroup": ...

    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer | Mapping[Any, torch.optim.Optimizer] | Iterable[torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch | WatchGroup":
        """Watch every ``optimizer.step()`` until ``close()`` of the returned handle; see `Environment.watch`."""
        return self._default.watch(model, optimizer, name=name, scaler=scaler, hooks=hooks, replicas=replicas)

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Mark an epoch; an exception passes through unchanged. See `Environment.epoch`."""
        with self._default.epoch(number):
            yield

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, for callbacks that cannot use a ``with`` block; see `Environment.begin_epoch`."""
        self._default.begin_epoch(number)

    def end_epoch(self) -> None:
        """End the epoch that `begin_epoch` has begun; see `Environment.end_epoch`."""
        self._default.end_epoch()

    @contextmanager
    def checkpoint(self, path: "str | os.PathLike[str] | None" = None) -> Iterator[None]:
        """Mark the saving of a checkpoint; see `Environment.checkpoint`."""
        with self._default.checkpoint(path):
            yield

    def log_loss(self, loss: "torch.Tensor | float", *, scale: float = 1.0, model: str | None = None) -> None:
        """Log the training loss of the next step; see `Environment.log_loss`."""
        self._default.log_loss(loss, scale=scale, model=model)

    def log(
        self, values: "Mapping[str, torch.Tensor | float] | None" = None, /, **named: "torch.Tensor | float"
    ) -> None:
        """Log scalars of your own by name; see `Environment.log`."""
        self._default.log(values, **named)

    def log_items(
        self, items: "Mapping[str, torch.Tensor | int] | None" = None, /, **named: "torch.Tensor | int"
    ) -> None:
        """Count processed items by kind, for throughput; see `Environment.log_items`."""
        self._default.log_items(items, **named)

    def log_clip(self, norm: "torch.Tensor | float", max_norm: float, *, model: str | None = None) -> None:
        """Log a clipping of gradients that the training loop did by itself; see `Environment.log_clip`."""
        self._default.log_clip(norm, max_norm, model=model)

    def clip_grad_norm_(
        self,
        parameters: "torch.Tensor | Iterable[torch.Tensor]",
        max_norm: float,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
        foreach: bool | None = None,
        *,
        model: str | None = None,
    ) -> "torch.Tensor":
        """Clip gradients, and log their norm before clipping and the factor; see `Environment.clip_grad_norm_`."""
        return self._default.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach, model=model)

    def validate(
        self,
        *,
        loss: "torch.Tensor | float | None" = None,
        accuracy: "torch.Tensor | float | None" = None,
        per_class_accuracy: Mapping[Any, float] | None = None,
        per_class_loss: Mapping[Any, float] | None = None,
        train_accuracy: "torch.Tensor | float | None" = None,
        meter: "ValidationMeter | Measured | None" = None,
        closure: "Callable[[], torch.Tensor] | None" = None,
    ) -> EpochSnapshot:
        """Log the results of a validation, and return a diagnosis of the training; see `Environment.validate`."""
        return self._default.validate(
            loss=loss,
            accuracy=accuracy,
            per_class_accuracy=per_class_accuracy,
            per_class_loss=per_class_loss,
            train_accuracy=train_accuracy,
            meter=meter,
            closure=closure,
        )

    def diagnose(self) -> EpochSnapshot:
        """Return a diagnosis of the training so far, without a validation; see `Environment.diagnose`."""
        return self._default.diagnose()

    def brief(self, *, action: object, reason: str | None = None) -> DecisionBrief:
        """Return the numbers and findings for a policy or language model; see `Environment.brief`."""
        return self._default.brief(action=action, reason=reason)

    def features(self) -> tuple[float, ...]:
        """Return the current state as ``config.feature_count`` bounded numbers; see `nissa.signals_to_features`."""
        return self._default.features()

    @property
    def tracker(self) -> "DiagnosticTracker":
        """Snapshots of the default environment, and the rules that are applied to them."""
        return self._default.tracker

    @property
    def history(self) -> tuple[EpochSnapshot, ...]:
        """Newest snapshots, oldest first; at most ``history_length`` of the configuration."""
        return self._default.history

    def germinate(
        self,
        seed_id: str,
        *,
        blueprint: str | None = None,
        slot: str | None = None,
        module: "torch.nn.Module | None" = None,
        parameters: int | None = None,
    ) -> Seed:
        """Begin the life of a seed, and return its handle; see `Environment.germinate`."""
        return self._default.germinate(seed_id, blueprint=blueprint, slot=slot, module=module, parameters=parameters)

    def resume_seed(self, state: Mapping[str, Any], *, module: "torch.nn.Module | None" = None) -> Seed:
        """Continue the life of a seed saved by ``Seed.state_dict()``; see `Environment.resume_seed`."""
        return self._default.resume_seed(state, module=module)

    @property
    def seeds(self) -> list[Seed]:
        """Seeds of the default environment, in the order in which they germinated."""
        return self._default.seeds

    # End of the run.

    def _end(self, end: RunEnd) -> None:
        # A forked child inherits the run, but not its threads. Only the process that started the run may end it.
        if self._closed or os.getpid() != self._pid or not self._shutdown_hook.claim():
            return
        self._closed = True
        limit = self.config.limits.exit_timeout_seconds
        deadline = monotonic() + limit
        at = self._runtime.now()
        if self._log_capture is not None:
            self._log_capture.close()
        with self._hub.error_boundary.guard("end of the run"):
            self._runtime.compare_replicas(deadline)
            self._runtime.stop_watching()
            self._runtime.readback.close(limit / 2)
            if self._description is not None:
                self._description.wait(min(_DESCRIPTION_SECONDS, limit / 4))
            ending = {"error": end.error, "exit_status": end.status}
            self._send(EventType.TRAINING_ENDED, data=ending, time_unix_nano=at)
            self._runtime.closed = True
            self._backends.remove(deadline)
            self._start.identity.end(max(0.0, min(_AGREEMENT_SECONDS, deadline - monotonic())))
        self._hub.listen(None)
        self._shutdown_hook.release()

    def _send(self, event_type: EventType, **fields: Any) -> None:
        self._default._send(event_type, **fields)  # noqa: SLF001 - the event carries the epoch of the environment

    def _abandon(self) -> None:
        """Make the run inert in a forked child: its threads exist only in the parent, which exports the telemetry."""
        self._closed = True
        self._runtime.closed = True
        if self._log_capture is not None:
            self._log_capture.close()
        self._shutdown_hook.abandon()
        self._hub.abandon()
        self._runtime.stop_watching()


def _abandon_in_children(run: Run) -> None:
    # Keep only a weak reference: a fork hook cannot be unregistered and would keep the run alive.
    reference = ref(run)

    def in_child() -> None:
        run = reference()
        if run is not None and not run.closed:
            run._abandon()  # noqa: SLF001 - our own class

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)
