"""Telemetry of one training run, from `nissa.start` to its end."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, strftime, time_ns
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary, ref

from nissa.config import TelemetryConfig, load
from nissa.diagnostics.brief import DecisionBrief
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.distributed.rank import Rank, common_run_id
from nissa.errors import RunActiveError
from nissa.events import EventType
from nissa.hub.hub import NissaHub
from nissa.otel.setup import Providers, obtain
from nissa.run.backends import RunBackends
from nissa.run.environment import Environment
from nissa.run.run_config import flatten
from nissa.run.runtime import Runtime
from nissa.run.shutdown import ShutdownHook
from nissa.seeds.checkpoint import state_dict
from nissa.seeds.seed import Seed

if TYPE_CHECKING:
    import torch

    from nissa.analytics.blueprints import BlueprintAnalytics
    from nissa.diagnostics.meter import Measured, ValidationMeter
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.gradients.watch import Watch
    from nissa.hub.backend import Backend
    from nissa.run.run_config import Attribute

_logger = logging.getLogger("nissa")

_active: WeakKeyDictionary[NissaHub, "ref[Run]"] = WeakKeyDictionary()
"""Active run of each hub, by which a lost handle is found again; the hub itself keeps the run alive."""


def start(  # noqa: PLR0913 - those of nissa.start, keyword-only
    profile: str | None = None,
    *,
    hub: NissaHub,
    service_name: str | None = None,
    config: "TelemetryConfig | str | os.PathLike[str] | None" = None,
    run_id: str | None = None,
    backends: "Iterable[Backend]" = (),
    clock: Callable[[], int] = time_ns,
    replace: bool = False,
    run_config: object = None,
    **overrides: Any,
) -> "Run":
    """Start a run; see `nissa.start`."""
    settings = config if isinstance(config, TelemetryConfig) else load(profile, config, overrides)
    hyperparameters = {} if run_config is None else flatten(run_config, settings.limits.max_run_config)
    _end_active_run(hub, replace=replace)
    identity = run_id or _named_run_id(os.environ) or common_run_id(_new_run_id())
    rank = Rank.discover(os.environ)
    providers = obtain(
        service_name=service_name,
        run_id=identity,
        profile=settings.profile_name,
        rank=rank,
        folder=Path(settings.files.directory) / identity,
        export_interval_seconds=settings.files.export_interval_seconds,
        exit_seconds=settings.limits.exit_timeout_seconds,
    )
    return Run(
        settings,
        hub,
        providers,
        run_id=identity,
        rank=rank,
        backends=backends,
        clock=clock,
        hyperparameters=hyperparameters,
    )


def active_run(hub: NissaHub) -> "Run | None":
    """Return the active run of a hub, or None."""
    run = reference() if (reference := _active.get(hub)) is not None else None
    return None if run is None or run.closed else run


def is_watched(run: "Run", optimizer: "torch.optim.Optimizer") -> bool:
    """Whether a run watches an optimizer, in any of its environments."""
    return run._runtime.is_watched(optimizer)  # noqa: SLF001 - our own class


def _end_active_run(hub: NissaHub, *, replace: bool) -> None:
    active = active_run(hub)
    if active is None:
        if hub.has_listener:
            raise RunActiveError("Another listener is active on this hub; nissa.reset_hub() returns a new one.")
        return
    if not (replace or active.replaceable or _is_interactive()):
        raise RunActiveError(
            f"The run {active.run_id} is active in this process. End it with nissa.current_run().close() before you start "
            "another, or start the other one with replace=True, which ends it."
        )
    _logger.warning("The run %s is ended, because another one is started.", active.run_id)
    active.close()


def _is_interactive() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


class Run:
    """A training run and its telemetry, returned by `nissa.start`; best used in a ``with`` statement.

    Every run has a default environment, and the run itself has all methods of `Environment`: they act on the
    default environment. A run with one model needs only ``run.watch``, ``run.epoch``, ``run.log_loss``,
    ``run.validate`` and ``run.germinate``.

    Attributes:
        env_id: Id of the default environment: None.
        run_id: Identity of the run, on its resource and spans.
        config: Settings of the run.
        directory: Directory of the run's files, None if telemetry is exported elsewhere.
        destination: Destination of the telemetry, as text for people.
        replaceable: Whether the next `nissa.start` ends this run: one that the script itself has not started.
    """

    def __init__(  # noqa: PLR0913 - every argument is a collaborator or a fact about the run
        self,
        config: TelemetryConfig,
        hub: NissaHub,
        providers: Providers,
        *,
        run_id: str,
        rank: Rank,
        backends: "Iterable[Backend]",
        clock: Callable[[], int],
        hyperparameters: "Mapping[str, Attribute]" = MappingProxyType({}),
    ) -> None:
        self.run_id = run_id
        self.config = config
        self.directory = providers.folder
        self.destination = providers.origin
        self._hub = hub
        self.replaceable = False
        self._closed = False
        self._pid = os.getpid()
        self._environments: dict[str, Environment] = {}
        self._runtime = Runtime(config, hub, now=clock, on_hub_closed=self.close)
        self._default = Environment(self._runtime, None)
        self.env_id = self._default.env_id
        hub.resize(queue_size=config.limits.queue_size, lifecycle_queue_size=config.limits.lifecycle_queue_size)
        self._backends = RunBackends(self._runtime, providers, run_id=run_id, user_backends=backends)
        hub.listen(self._runtime)
        self._shutdown_hook = ShutdownHook(self._end, hub.sections)
        _active[hub] = ref(self)
        _abandon_in_children(self)
        data = {"run_id": run_id, "profile": config.profile_name, "rank": rank.rank, "world_size": rank.world_size}
        self._send(EventType.TRAINING_STARTED, data=data | {"run_config": dict(hyperparameters) or None})

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run. An exception passes through; its type is recorded on the spans that it interrupts."""
        self._end(None if error is None else type(error).__name__)

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
        key = str(env_id)
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
        return [state_dict(record) for record in self._runtime.table.slots.alive()]

    def flush(self, timeout: float = 5.0) -> bool:
        """Export everything measured so far. Return whether this finished within ``timeout`` seconds."""
        deadline = monotonic() + timeout
        self._runtime.export_all_logged()
        rows_delivered = self._runtime.readback.flush(timeout)
        return self._hub.flush(max(0.0, deadline - monotonic())) and rows_delivered

    def close(self) -> None:
        """End the run: export everything, and remove all hooks and backends. Takes at most the exit timeout."""
        self._end(None)

    # Methods of the default environment. A test compares their signatures with those of `Environment`.

    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
    ) -> "Watch":
        """Watch every ``optimizer.step()`` until ``close()`` of the returned handle; see `Environment.watch`."""
        return self._default.watch(model, optimizer, name=name, scaler=scaler, hooks=hooks)

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

    def _end(self, reason: str | None) -> None:
        # A forked child inherits the run, but not its threads. Only the process that started the run may end it.
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._shutdown_hook.begin()
        limit = self.config.limits.exit_timeout_seconds
        deadline = monotonic() + limit
        at = self._runtime.now()
        with self._hub.error_boundary.guard("end of the run"):
            self._runtime.stop_watching()
            self._runtime.readback.close(limit / 2)
            self._send(EventType.TRAINING_ENDED, data={"error": reason}, time_unix_nano=at)
            self._runtime.closed = True
            self._backends.remove(deadline)
        self._hub.listen(None)
        self._shutdown_hook.release()

    def _send(self, event_type: EventType, **fields: Any) -> None:
        self._default._send(event_type, **fields)  # noqa: SLF001 - the event carries the epoch of the environment

    def _abandon(self) -> None:
        """Make the run inert in a forked child: its threads exist only in the parent, which exports the telemetry."""
        self._closed = True
        self._runtime.closed = True
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


def _named_run_id(environ: Mapping[str, str]) -> str | None:
    """Return the run id that the environment names, or None."""
    elastic = environ.get("TORCHELASTIC_RUN_ID")
    return environ.get("NISSA_RUN_ID") or (elastic if elastic != "none" else None)


def _new_run_id() -> str:
    return f"{strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
