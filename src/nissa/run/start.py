"""Start of a run: settings, identity, and the end of the run before it."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

from nissa.config import TelemetryConfig, load
from nissa.errors import ConfigurationError, RunActiveError
from nissa.otel.setup import obtain
from nissa.run.agreement import RunStart
from nissa.run.identity import named_run_id
from nissa.run.run import Run, active_run, active_runs
from nissa.run.run_config import flatten
from nissa.run.state import ResumedRun

if TYPE_CHECKING:
    from nissa.hub.backend import Backend
    from nissa.hub.hub import NissaHub
    from nissa.otel.export.memory_lines import MemoryLines

_logger = logging.getLogger("nissa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Destination, settings and clock of the runs that code under test starts; see `nissa.testing.capture`.

    Args:
        memory: Receives the telemetry, in place of every other destination.
        adjust: Returns the settings of a run, given those that the code has chosen.
        attach: Called with the hub of a run, before the run starts.
        clock: Wall clock, nanoseconds since the Unix epoch.
    """

    memory: "MemoryLines"
    adjust: Callable[[TelemetryConfig], TelemetryConfig]
    attach: "Callable[[NissaHub], object]"
    clock: Callable[[], int]


captures: list[Capture] = []
"""Open captures, outermost first; the last one is in effect."""


def start(  # noqa: PLR0913 - those of nissa.start, keyword-only
    profile: str | None = None,
    *,
    hub: "NissaHub",
    service_name: str | None = None,
    config: "TelemetryConfig | str | os.PathLike[str] | None" = None,
    run_id: str | None = None,
    backends: "Iterable[Backend]" = (),
    clock: Callable[[], int] = time_ns,
    replace: bool = False,
    resume: Mapping[str, Any] | None = None,
    run_config: object = None,
    **overrides: Any,
) -> Run:
    """Start a run; see `nissa.start`."""
    capture = captures[-1] if captures else None
    with _starting(hub):
        settings = config if isinstance(config, TelemetryConfig) else load(profile, config, overrides)
        if capture is not None:
            settings, clock = capture.adjust(settings), capture.clock
        hyperparameters = {} if run_config is None else flatten(run_config, settings.limits.max_run_config)
        resumed = None if resume is None else ResumedRun.of(resume)
        named = named_run_id(run_id, None if resumed is None else resumed.run_id)
        _end_active_run(hub, replace=replace)
        start = RunStart.agree(named, resumed, os.environ)
        identity = start.identity.run_id
        if capture is not None:
            capture.attach(hub)
        providers = obtain(
            service_name=service_name,
            run_id=identity,
            profile=settings.profile_name,
            rank=start.rank,
            folder=_absolute(settings.files.directory) / identity,
            files=settings.files,
            exit_seconds=settings.limits.exit_timeout_seconds,
            memory=None if capture is None else capture.memory,
        )
        return Run(
            settings, hub, providers, start=start, backends=backends, clock=clock, hyperparameters=hyperparameters
        )


def _absolute(directory: Path) -> Path:
    """Return the path of a directory that stays the same when the script changes its working directory."""
    try:
        return directory.absolute()
    except OSError as error:
        raise ConfigurationError(
            f"files.directory is {str(directory)!r}, but the working directory was removed: {error.strerror}. Change to one "
            "that exists, or give an absolute path."
        ) from error


@contextmanager
def _starting(hub: "NissaHub") -> Iterator[None]:
    """Reserve a hub for the run that this thread starts; threads that start one at the same time are refused.

    `dict.setdefault` is atomic, so no lock is needed, which a signal handler or a forked child could find locked.
    """
    process, claim = os.getpid(), object()
    if hub.claims.setdefault(process, claim) is not claim:
        raise RunActiveError(
            "Another thread of this process is starting a run. Start one run per process, and use it in all threads: "
            "nissa.current_run() returns it, and run.environment(id) separates their trainings."
        )
    try:
        yield
    finally:
        del hub.claims[process]


def _end_active_run(hub: "NissaHub", *, replace: bool) -> None:
    active = active_run(hub)
    if active is None:
        if hub.has_listener:
            raise RunActiveError(
                "A run of this process is ending right now. Start the next one after its close() has returned."
                if active_runs.get(hub) is not None
                else "Another listener is active on this hub; nissa.reset_hub() returns a new one."
            )
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
