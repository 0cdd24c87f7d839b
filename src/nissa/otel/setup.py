"""Selection of the OpenTelemetry providers of a run, at its start.

The first rule that applies decides:

1. Providers that the application has set are used, whatever their implementation.
2. If ``OTEL_*`` names exporters or endpoints, the SDK's configurator builds global providers.
3. If ``OTEL_PYTHON_*_PROVIDER`` selects providers, these are used.
4. Otherwise the run creates private providers that write OTLP JSON Lines files.
"""

import os
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.resources import Resource

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.hub.plain_data import to_name
from nissa.otel import random_isolation
from nissa.otel.export import files, keeping, portions
from nissa.otel.export.ending import BoundedEnd
from nissa.otel.metrics.observed import is_real
from nissa.otel.metrics.producer import MOST_POINTS
from nissa.semconv import attributes as attr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nissa.backends.append_file import LineFile
    from nissa.distributed.rank import Rank

SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
"""Signal names as spelled in environment variables."""

ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    *(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in SIGNALS),
)
"""Variables that enable OTLP for signals without an ``OTEL_<SIGNAL>_EXPORTER``."""

_OTLP_METRIC_EXPORTERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)
_SELECTED: Final = tuple(f"OTEL_PYTHON_{kind}_PROVIDER" for kind in ("TRACER", "METER", "LOGGER"))
_ALIASES: Final = frozenset({"otlp", "none"})


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers of a run.

    Args:
        owned: They belong to the run and are shut down with it; otherwise they are only flushed.
        folder: Folder of the files, None if none are written.
        origin: Description of the destination, for people.
        files: Files to close after the shutdown of owned providers.
        exit_seconds: Time limit of the shutdown at interpreter exit, seconds.
    """

    tracer: Any
    meter: Any
    logger: Any
    owned: bool
    folder: "Path | None"
    origin: str
    files: "tuple[LineFile, ...]" = ()
    exit_seconds: float = 5.0
    end: BoundedEnd = field(init=False)

    def __post_init__(self) -> None:
        """Create the bounded shutdown of the three providers."""
        object.__setattr__(self, "end", BoundedEnd((self.tracer, self.logger, self.meter), self.exit_seconds))

    def flush(self, timeout: float) -> bool:
        """Export pending telemetry; return whether that finished within ``timeout`` seconds."""
        return self.end.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Export pending telemetry and shut down owned providers; return whether that finished in time."""
        if not self.owned:
            return self.flush(timeout)
        ended = self.end.shutdown(timeout)
        for file in self.files if ended else ():
            file.close()
        return ended


def obtain(  # noqa: PLR0913 - facts about a run, each named at the call
    *,
    service_name: str | None,
    run_id: str,
    profile: str,
    rank: "Rank",
    folder: "Path",
    export_interval_seconds: float,
    exit_seconds: float = 5.0,
    environ: Mapping[str, str] = os.environ,
) -> Providers:
    """Return the providers of a run, by the rules in the module docstring.

    Raises:
        UnknownNameError: The environment names an exporter that is not installed.
        ConfigurationError: The folder for files cannot be written.
    """
    random_isolation.isolate()
    attributes = _resource_attributes(service_name, run_id, profile, rank, environ)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Providers(None, None, None, owned=False, folder=None, origin="nowhere (OTEL_SDK_DISABLED)")
    present = _present(environ)
    if present is not None:
        return present
    if configured(environ):
        return _from_environment(attributes, environ, exit_seconds)
    built = files.build(folder, rank.suffix, Resource.create(attributes), export_interval_seconds)
    return Providers(
        built.tracer, built.meter, built.logger, owned=True, folder=folder, origin=str(folder), files=built.files
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
    tracer, meter, logger = trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()
    if not any(map(is_real, (tracer, meter, logger))):
        return None
    return Providers(
        tracer, meter, logger, owned=False, folder=None, origin="the application's OpenTelemetry providers"
    )


def configured(environ: Mapping[str, str]) -> bool:
    """Whether environment variables configure an exporter, an endpoint or a configuration file."""
    if environ.get("OTEL_CONFIG_FILE") or any(environ.get(name) for name in ENDPOINTS):
        return True
    return any(environ.get(f"OTEL_{signal}_EXPORTER", "").strip() for signal in SIGNALS)


def _from_environment(attributes: dict[str, Any], environ: Mapping[str, str], exit_seconds: float) -> Providers:
    check_exporters(environ)
    with _default_exporters(environ), keeping.long_queues(environ), _changed(dict.fromkeys(_SELECTED)):
        # A declarative configuration file defines its own resource; passing another one logs a warning.
        kwargs = {} if environ.get("OTEL_CONFIG_FILE") else _settings(attributes)
        configurator: Any = _OTelSDKConfigurator  # the SDK leaves it unannotated
        try:
            configurator().configure(**kwargs)
        except Exception as error:
            message = f"OpenTelemetry cannot be set up as OTEL_* describes it: {error}{_hint(error, environ)}"
            raise ConfigurationError(message) from error
    providers = _application_providers()
    assert providers is not None  # noqa: S101 - the configurator has just set them
    keeping.keep(providers.tracer, providers.meter, providers.logger)
    built = replace(providers, origin=_describe(environ), exit_seconds=exit_seconds)
    built.end.at_exit()
    return built


def _hint(error: Exception, environ: Mapping[str, str]) -> str:
    if isinstance(error, OSError) and "prometheus" in environ.get("OTEL_METRICS_EXPORTER", ""):
        return ". Give each process, such as each rank on a host, an OTEL_EXPORTER_PROMETHEUS_PORT of its own."
    return ""


def _settings(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the configurator's arguments that no environment variable sets."""
    # Limit the size of requests: a collector rejects messages above 4 MiB by default.
    batch = {"max_export_batch_size": MOST_POINTS}
    return {
        "resource_attributes": attributes,
        "exporter_args_map": dict.fromkeys(_exporters(), batch),
        "export_span_processor": portions.span_processor,
        "export_log_record_processor": portions.log_processor,
    }


def _exporters() -> "Iterator[type]":
    for module in _OTLP_METRIC_EXPORTERS:
        with suppress(ImportError):
            yield import_module(module).OTLPMetricExporter


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
    return f"OTLP at {endpoint}" if endpoint else "the exporters named in OTEL_*_EXPORTER"
