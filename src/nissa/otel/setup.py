"""Selection of the OpenTelemetry providers of a run, at its start.

The first rule that applies decides:

1. Providers that the application has set are used, whatever their implementation.
2. If ``OTEL_*`` names exporters or endpoints, the SDK's configurator builds global providers. If a distro or an earlier run
   has done so before, the run has private ones beside them, for the signals that are exported over OTLP.
3. If ``OTEL_PYTHON_*_PROVIDER`` selects providers, these are used.
4. Otherwise the run creates private providers that write OTLP JSON Lines files.

Signals that are exported over OTLP by rule 2, and the files of rule 4, go through the run's own pipeline. All other
exporters are the SDK's.
"""

import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.resources import Resource

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.hub.plain_data import to_name
from nissa.otel import random_isolation
from nissa.otel.compat import configure_providers
from nissa.otel.export.building import (
    file_pipeline,
    memory_pipeline,
    others,
    otlp_settings,
    private_providers,
    spool_pipeline,
)
from nissa.otel.export.ending import BoundedEnd
from nissa.otel.global_providers import GlobalProviders
from nissa.otel.otlp.redaction import public_url
from nissa.otel.otlp.settings import ENDPOINTS
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nissa.config.sections import FilesConfig
    from nissa.distributed.rank import Rank
    from nissa.journal import Signal
    from nissa.otel.export.building import BuiltPipeline
    from nissa.otel.export.memory_lines import MemoryLines
    from nissa.otel.export.metric_reader import ExportReader
    from nissa.otel.otlp.settings import OtlpSettings

SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
"""Signal names as spelled in environment variables."""

_SELECTED: Final = tuple(f"OTEL_PYTHON_{kind}_PROVIDER" for kind in ("TRACER", "METER", "LOGGER"))
_ALIASES: Final = frozenset({"otlp", "none"})


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers of a run.

    Args:
        owned: They belong to the run and are shut down with it; otherwise they are only flushed.
        folder: Folder of the files, None if none are written.
        origin: Description of the destination, for people.
        built: Pipeline and reader that export them; None for providers of the application, and for ``delivery: sdk``.
        shared: Exporters of the SDK are used beside the pipeline.
        in_memory: A test has captured the run; there is no place where people could look at the telemetry.
        other_readers: The meter provider has metric readers beside that of the pipeline.
        exit_seconds: Time limit of the shutdown at interpreter exit, seconds.
    """

    tracer: Any
    meter: Any
    logger: Any
    owned: bool
    folder: "Path | None"
    origin: str
    built: "BuiltPipeline | None" = None
    shared: bool = False
    in_memory: bool = False
    other_readers: bool = False
    exit_seconds: float = 5.0
    end: BoundedEnd = field(init=False)

    def __post_init__(self) -> None:
        """Create the bounded shutdown of the three providers and the pipeline."""
        pipeline = None if self.built is None else self.built.pipeline
        others = () if self.built is not None and not self.shared else (self.tracer, self.logger, self.meter)
        object.__setattr__(self, "end", BoundedEnd(pipeline, others, self.exit_seconds))

    @property
    def reader(self) -> "ExportReader | None":
        """Metric reader of the pipeline; None if the pipeline exports no metrics."""
        return None if self.built is None or "metrics" not in self.built.signals else self.built.reader

    def flush(self, timeout: float) -> bool:
        """Export pending telemetry; return whether all of it was delivered within ``timeout`` seconds."""
        return self.end.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Export pending telemetry and shut down owned providers; return whether all of it was delivered in time."""
        return self.end.shutdown(timeout) if self.owned else self.flush(timeout)


def obtain(  # noqa: PLR0913 - facts about a run, each named at the call
    *,
    service_name: str | None,
    run_id: str,
    profile: str,
    rank: "Rank",
    folder: "Path",
    files: "FilesConfig",
    exit_seconds: float = 5.0,
    memory: "MemoryLines | None" = None,
    environ: Mapping[str, str] = os.environ,
) -> Providers:
    """Return the providers of a run, by the rules in the module docstring.

    Telemetry that is captured in ``memory`` goes nowhere else, whatever these rules say.

    Raises:
        UnknownNameError: The environment names an exporter that is not installed.
        ConfigurationError: The folder for files cannot be written.
    """
    random_isolation.isolate(exporters=configured(environ))
    attributes = _resource_attributes(service_name, run_id, profile, rank, environ)
    if memory is not None:
        built = memory_pipeline(memory, Resource.create(attributes), exit_seconds=exit_seconds)
        return replace(_private(built, None, origin="memory", exit_seconds=exit_seconds), in_memory=True)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Providers(None, None, None, owned=False, folder=None, origin="nowhere (OTEL_SDK_DISABLED)")
    present = _present(environ)
    if present is not None:
        return present
    if configured(environ):
        return _from_environment(attributes, environ, files, folder / f"spool{rank.suffix}", exit_seconds)
    built = file_pipeline(folder, rank.suffix, Resource.create(attributes), files, exit_seconds=exit_seconds)
    return _private(built, folder, origin=str(folder), exit_seconds=exit_seconds)


def _private(built: "BuiltPipeline", folder: "Path | None", *, origin: str, exit_seconds: float) -> Providers:
    tracer, meter, logger = private_providers(built)
    return Providers(
        tracer, meter, logger, owned=True, folder=folder, origin=origin, built=built, exit_seconds=exit_seconds
    )


def _resource_attributes(
    service_name: str | None, run_id: str, profile: str, rank: "Rank", environ: Mapping[str, str]
) -> dict[str, Any]:
    keys = [entry.partition("=")[0].strip() for entry in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")]
    named = environ.get("OTEL_SERVICE_NAME") or "service.name" in keys
    found = {
        "service.name": to_name(service_name) or (None if named else "nissa"),
        attr.RUN_ID: run_id,
        attr.PROFILE: profile,
        attr.RANK: rank.rank,
        attr.LOCAL_RANK: rank.local_rank,
        attr.WORLD_SIZE: rank.world_size,
    }
    return {key: value for key, value in found.items() if value is not None}


def _present(environ: Mapping[str, str]) -> Providers | None:
    """Return existing providers: set by the application or, if no exporter is configured, selected by a variable."""
    # Getting a provider that a variable selects loads it, and the SDK's own would then lack an exporter. So the
    # variables are hidden for the first check.
    with _changed(dict.fromkeys(_SELECTED)):
        present = _application_providers()
    if present is None and configured(environ):
        return None
    try:
        return _application_providers()
    except Exception as error:
        raise ConfigurationError(
            f"A provider that {', '.join(filter(environ.get, _SELECTED))} selects cannot be loaded: {error!r}. "
            "Name an installed entry point, or leave the variable unset."
        ) from error


def _application_providers() -> Providers | None:
    """Return the global providers, no-ops included; None if the application has set none."""
    present = GlobalProviders.present()
    if not present.of_application:
        return None
    return Providers(*present, owned=False, folder=None, origin="the application's OpenTelemetry providers")


def configured(environ: Mapping[str, str]) -> bool:
    """Whether environment variables configure an exporter, an endpoint or a configuration file."""
    if environ.get("OTEL_CONFIG_FILE") or any(environ.get(name) for name in ENDPOINTS):
        return True
    return any(environ.get(f"OTEL_{signal}_EXPORTER", "").strip() for signal in SIGNALS)


def _from_environment(
    attributes: dict[str, Any], environ: Mapping[str, str], files: "FilesConfig", spool: "Path", exit_seconds: float
) -> Providers:
    """Return providers that the variables describe; the SDK builds everything but the delivery over OTLP."""
    check_exporters(environ)
    direct = environ.get("OTEL_CONFIG_FILE") or files.delivery == "sdk"
    settings = {} if direct else otlp_settings(environ)

    def pipeline(resource: Resource) -> "BuiltPipeline | None":
        if not settings:
            return None
        return spool_pipeline(settings, spool, resource, files, exit_seconds=exit_seconds, environ=environ)

    present = GlobalProviders.present()
    if present.any_set:
        built = pipeline(Resource.create(attributes))
        return _beside(present, built, origin=_describe(environ), exit_seconds=exit_seconds)
    present = _build_global(attributes, settings, environ)
    built = pipeline(present.tracer.resource)
    if built is not None:
        built.attach(*present)
    beside = {variable for variable, names in others(settings, environ).items() if names != "none"}
    found = Providers(
        *present,
        owned=False,
        folder=None,
        origin=_describe(environ),
        built=built,
        shared=bool(beside),
        other_readers="OTEL_METRICS_EXPORTER" in beside,
        exit_seconds=exit_seconds,
    )
    found.end.at_exit()
    return found


def _beside(present: GlobalProviders, built: "BuiltPipeline | None", *, origin: str, exit_seconds: float) -> Providers:
    """Return private providers for the signals that a pipeline exports, and the global ones for the others."""
    if built is None:
        return Providers(*present, owned=False, folder=None, origin=origin)
    triples = zip(SIGNALS, private_providers(built), present, strict=True)
    tracer, meter, logger = (own if signal.lower() in built.signals else other for signal, own, other in triples)
    return Providers(
        tracer, meter, logger, owned=True, folder=None, origin=origin, built=built, exit_seconds=exit_seconds
    )


def _build_global(
    attributes: dict[str, Any], settings: "Mapping[Signal, OtlpSettings]", environ: Mapping[str, str]
) -> GlobalProviders:
    with _default_exporters(environ), _changed(dict.fromkeys(_SELECTED)), _changed(others(settings, environ)):
        try:
            # A declarative configuration file defines its own resource; passing another one logs a warning.
            configure_providers(None if environ.get("OTEL_CONFIG_FILE") else attributes)
        except Exception as error:
            message = f"OpenTelemetry cannot be set up as OTEL_* describes it: {error}{_hint(error, environ)}"
            raise ConfigurationError(message) from error
    present = GlobalProviders.present()
    present.set_aside()
    return present


def _hint(error: Exception, environ: Mapping[str, str]) -> str:
    if isinstance(error, OSError) and "prometheus" in environ.get("OTEL_METRICS_EXPORTER", ""):
        return ". Give each process, such as each rank on a host, an OTEL_EXPORTER_PROMETHEUS_PORT of its own."
    return ""


def check_exporters(environ: Mapping[str, str]) -> None:
    """Raise for exporters that are not installed.

    Raises:
        UnknownNameError: An exporter is not installed; names the variable and the available exporters.
    """
    if environ.get("OTEL_CONFIG_FILE"):  # the SDK then reads no other variable
        return
    for signal in SIGNALS:
        available = {point.name for point in entry_points(group=f"opentelemetry_{signal.lower()}_exporter")} | _ALIASES
        for name in environ.get(f"OTEL_{signal}_EXPORTER", "").split(","):
            if name.strip() and name.strip() not in available:
                raise UnknownNameError(f"exporter in OTEL_{signal}_EXPORTER", name.strip(), available)


def _default_exporters(environ: Mapping[str, str]) -> "AbstractContextManager[None]":
    """Select the OTLP exporter for all signals if only an endpoint is set; the bare SDK would export nothing."""
    names = [f"OTEL_{signal}_EXPORTER" for signal in SIGNALS]
    missing = [name for name in names if not environ.get(name)] if any(map(environ.get, ENDPOINTS)) else []
    return _changed(dict.fromkeys(missing, "otlp"))


@contextmanager
def _changed(variables: Mapping[str, str | None]) -> "Iterator[None]":
    """Set environment variables within a context, or remove those that are None."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _describe(environ: Mapping[str, str]) -> str:
    if environ.get("OTEL_CONFIG_FILE"):
        return f"what {environ['OTEL_CONFIG_FILE']} describes"
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), None)
    return f"OTLP at {public_url(endpoint)}" if endpoint else "the exporters named in OTEL_*_EXPORTER"
