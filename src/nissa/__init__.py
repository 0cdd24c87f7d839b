"""Watch a network grow while it trains: OpenTelemetry for PyTorch.

Importing this package is fast: torch, the OpenTelemetry SDK and pydantic are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nissa.errors import (
    ConfigurationError,
    NissaError,
    RunActiveError,
    TransitionError,
    UnknownNameError,
    WatchError,
)
from nissa.events import EventType, GateResult, Severity, Stage, TelemetryEvent
from nissa.hub.hub import NissaHub

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from nissa.analytics.blueprints import BlueprintAnalytics
    from nissa.analytics.prior import BlueprintPrior
    from nissa.backends.console import ConsoleBackend
    from nissa.backends.file import FileBackend
    from nissa.backends.memory import MemoryBackend
    from nissa.config import TelemetryConfig
    from nissa.diagnostics.brief import DecisionBrief
    from nissa.diagnostics.features import signals_to_features
    from nissa.diagnostics.meter import ValidationMeter
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.gradients.collector import GradientStatistics, PendingGradients, collect_gradients
    from nissa.hub.backend import Backend
    from nissa.run.environment import Environment
    from nissa.run.run import Run
    from nissa.seeds.seed import Seed

__all__ = [
    "Backend",
    "BlueprintAnalytics",
    "BlueprintPrior",
    "ConfigurationError",
    "ConsoleBackend",
    "DecisionBrief",
    "DiagnosticTracker",
    "Environment",
    "EpochSnapshot",
    "EventType",
    "FileBackend",
    "GateResult",
    "GradientStatistics",
    "MemoryBackend",
    "NissaError",
    "NissaHub",
    "PendingGradients",
    "Run",
    "RunActiveError",
    "Seed",
    "Severity",
    "Stage",
    "TelemetryConfig",
    "TelemetryEvent",
    "TransitionError",
    "UnknownNameError",
    "ValidationMeter",
    "WatchError",
    "collect_gradients",
    "get_hub",
    "reset_hub",
    "signals_to_features",
    "start",
]

_LAZY = {
    "Backend": "nissa.hub.backend",
    "BlueprintAnalytics": "nissa.analytics.blueprints",
    "BlueprintPrior": "nissa.analytics.prior",
    "ConsoleBackend": "nissa.backends.console",
    "DecisionBrief": "nissa.diagnostics.brief",
    "DiagnosticTracker": "nissa.diagnostics.tracker",
    "Environment": "nissa.run.environment",
    "EpochSnapshot": "nissa.diagnostics.snapshot",
    "FileBackend": "nissa.backends.file",
    "GradientStatistics": "nissa.gradients.collector",
    "MemoryBackend": "nissa.backends.memory",
    "PendingGradients": "nissa.gradients.collector",
    "Run": "nissa.run.run",
    "Seed": "nissa.seeds.seed",
    "TelemetryConfig": "nissa.config",
    "ValidationMeter": "nissa.diagnostics.meter",
    "collect_gradients": "nissa.gradients.collector",
    "signals_to_features": "nissa.diagnostics.features",
}

_hub: NissaHub | None = None


def get_hub() -> NissaHub:
    """Return the hub of this process, created at the first call. A run receives the events of this hub."""
    global _hub  # noqa: PLW0603 - the one convenience default; everything else is owned by somebody
    if _hub is None:
        _hub = NissaHub()
    return _hub


def reset_hub() -> NissaHub:
    """End the active run, close the hub and its backends, and return a new one."""
    global _hub  # noqa: PLW0603 - see get_hub
    if _hub is not None:
        _hub.close()
    _hub = NissaHub()
    return _hub


def start(
    profile: str | None = None,
    *,
    service_name: str | None = None,
    config: "TelemetryConfig | str | os.PathLike[str] | None" = None,
    run_id: str | None = None,
    backends: "Iterable[Backend]" = (),
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
        **overrides: Settings, such as ``gradients={"every_n_steps": 1}`` or ``gradients__every_n_steps=1``.

    Raises:
        ConfigurationError: A setting, file or argument cannot be used; the message says what to do.
        RunActiveError: A run is active already.
    """
    run = import_module("nissa.run.run")
    started: Run = run.start(
        profile,
        hub=get_hub(),
        service_name=service_name,
        config=config,
        run_id=run_id,
        backends=backends,
        **overrides,
    )
    return started


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'nissa' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
