"""Watch a network grow while it trains: OpenTelemetry for PyTorch.

Importing this package is fast: torch, the OpenTelemetry SDK and pydantic are imported on first use.
"""

from importlib import import_module
from os import getpid
from typing import TYPE_CHECKING, Any

from nissa import garbage
from nissa.hub.hub import NissaHub as NissaHub

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    # The names of _LAZY for type checkers, which treat a name imported `as` itself as exported.
    from nissa.analytics.blueprints import BlueprintAnalytics as BlueprintAnalytics
    from nissa.analytics.prior import BlueprintPrior as BlueprintPrior
    from nissa.backends.console import ConsoleBackend as ConsoleBackend
    from nissa.backends.file import FileBackend as FileBackend
    from nissa.backends.memory import MemoryBackend as MemoryBackend
    from nissa.config import TelemetryConfig as TelemetryConfig
    from nissa.diagnostics.brief import DecisionBrief as DecisionBrief
    from nissa.diagnostics.features import signals_to_features as signals_to_features
    from nissa.diagnostics.meter import ValidationMeter as ValidationMeter
    from nissa.diagnostics.snapshot import EpochSnapshot as EpochSnapshot
    from nissa.diagnostics.tracker import DiagnosticTracker as DiagnosticTracker
    from nissa.errors import ConfigurationError as ConfigurationError
    from nissa.errors import InvalidValueError as InvalidValueError
    from nissa.errors import NissaError as NissaError
    from nissa.errors import RunActiveError as RunActiveError
    from nissa.errors import TransitionError as TransitionError
    from nissa.errors import UnknownNameError as UnknownNameError
    from nissa.errors import WatchError as WatchError
    from nissa.events import EventType as EventType
    from nissa.events import GateResult as GateResult
    from nissa.events import Severity as Severity
    from nissa.events import Stage as Stage
    from nissa.events import TelemetryEvent as TelemetryEvent
    from nissa.gradients.collector import GradientStatistics as GradientStatistics
    from nissa.gradients.collector import PendingGradients as PendingGradients
    from nissa.gradients.collector import collect_gradients as collect_gradients
    from nissa.hub.backend import Backend as Backend
    from nissa.run.environment import Environment as Environment
    from nissa.run.run import Run as Run
    from nissa.seeds.seed import Seed as Seed

    __all__: list[str]  # without a value, type checkers export the functions of this module and the names above

_LAZY = {
    "Backend": "nissa.hub.backend",
    "BlueprintAnalytics": "nissa.analytics.blueprints",
    "BlueprintPrior": "nissa.analytics.prior",
    "ConfigurationError": "nissa.errors",
    "ConsoleBackend": "nissa.backends.console",
    "DecisionBrief": "nissa.diagnostics.brief",
    "DiagnosticTracker": "nissa.diagnostics.tracker",
    "Environment": "nissa.run.environment",
    "EpochSnapshot": "nissa.diagnostics.snapshot",
    "EventType": "nissa.events",
    "FileBackend": "nissa.backends.file",
    "GateResult": "nissa.events",
    "GradientStatistics": "nissa.gradients.collector",
    "InvalidValueError": "nissa.errors",
    "MemoryBackend": "nissa.backends.memory",
    "NissaError": "nissa.errors",
    "PendingGradients": "nissa.gradients.collector",
    "Run": "nissa.run.run",
    "RunActiveError": "nissa.errors",
    "Seed": "nissa.seeds.seed",
    "Severity": "nissa.events",
    "Stage": "nissa.events",
    "TelemetryConfig": "nissa.config",
    "TelemetryEvent": "nissa.events",
    "TransitionError": "nissa.errors",
    "UnknownNameError": "nissa.errors",
    "ValidationMeter": "nissa.diagnostics.meter",
    "WatchError": "nissa.errors",
    "collect_gradients": "nissa.gradients.collector",
    "signals_to_features": "nissa.diagnostics.features",
}
"""Module of each public name that is loaded on first use."""

# Keyed by process id: a forked child has a hub of its own, because the threads of its parent's hub do not exist there.
_hubs: dict[int, NissaHub] = {}


def get_hub() -> NissaHub:
    """Return the hub of this process, created at the first call. A run receives the events of this hub.

    A forked child has a hub of its own: the backends' threads of the parent's hub do not exist there.
    """
    hub = _hubs.get(getpid())
    # `setdefault` is atomic: of several threads that call this at the same time, all get the same hub.
    return _hubs.setdefault(getpid(), NissaHub()) if hub is None else hub


def reset_hub() -> NissaHub:
    """End the active run, close the hub and its backends, and return a new one."""
    hub = _hubs.get(getpid())
    if hub is not None:
        hub.close()
    new = _hubs[getpid()] = NissaHub()
    return new


def start(  # noqa: PLR0913 - keyword-only
    profile: str | None = None,
    *,
    service_name: str | None = None,
    config: "TelemetryConfig | str | os.PathLike[str] | None" = None,
    run_id: str | None = None,
    backends: "Iterable[Backend]" = (),
    replace: bool = False,
    resume: "Mapping[str, Any] | None" = None,
    run_config: object = None,
    **overrides: Any,
) -> "Run":
    """Start a run.

    Providers that the application has set are used. Otherwise the ``OTEL_*`` variables select the exporters. Without
    them, telemetry is written as OTLP JSON lines to ``nissa-runs/<run id>/``.

    Args:
        profile: ``minimal``, ``standard`` (default), ``diagnostic`` or ``research``.
        service_name: ``service.name`` of the telemetry. Defaults to ``OTEL_SERVICE_NAME``, then to ``nissa``.
        config: A YAML file with settings, or a complete `TelemetryConfig`, which is used unchanged.
        run_id: Identity of the run. Defaults to ``NISSA_RUN_ID``, then to the launcher's run id, then to a new id.
        backends: Additional backends, closed at the end of the run.
        replace: End the active run first. In IPython and in notebooks, where a cell is often run again, the active run is
            always ended, with a notice.
        resume: Return value of ``Run.state_dict()``, from a checkpoint. The run continues under its id and, with files, in
            its folder: steps are counted on, open seeds continue in their traces, and so does the epoch in which the
            checkpoint was saved.
        run_config: Hyperparameters: a dict, dataclass or ``argparse.Namespace``, may be nested. They are attributes
            ``nissa.run.config.<name>`` of the epochs' spans, and in the report. Credentials are replaced by ``***``.
        **overrides: Settings, such as ``gradients={"every_n_steps": 1}`` or ``gradients__every_n_steps=1``.

    Raises:
        ConfigurationError: A setting, file or argument cannot be used; the message states the fix.
        RunActiveError: A run is active already; it is that of `current_run`.
    """
    with garbage.paused():  # start imports most of Nissa
        run = import_module("nissa.run.start")
        started: Run = run.start(
            profile,
            hub=get_hub(),
            service_name=service_name,
            config=config,
            run_id=run_id,
            backends=backends,
            replace=replace,
            resume=resume,
            run_config=run_config,
            **overrides,
        )
    return started


def current_run() -> "Run | None":
    """Return the active run of this process, or None: for code that has no handle of it."""
    run = import_module("nissa.run.run")
    active: Run | None = run.active_run(get_hub())
    return active


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Load a public name on first use."""
        # Computed here because type checkers accept only a literal, which would list every name again.
        if name == "__all__":
            return __dir__()
        if name not in _LAZY:
            raise AttributeError(f"module 'nissa' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted([*_LAZY, "NissaHub", "current_run", "get_hub", "reset_hub", "start"])
