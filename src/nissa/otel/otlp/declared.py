"""OTLP exporters that a declarative configuration file (``OTEL_CONFIG_FILE``) describes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

from nissa.otel.otlp.settings import GRPC, HTTP, PREFIX, OtlpSettings

_KINDS: Final = {"otlp_grpc": GRPC, "otlp_http": HTTP}
_PARTS: Final = {
    "traces": ("tracer_provider", "processors"),
    "metrics": ("meter_provider", "readers"),
    "logs": ("logger_provider", "processors"),
}
_FORMS: Final = ("batch", "simple", "periodic")


def declared_settings(file: str, environ: Mapping[str, str]) -> list[OtlpSettings]:
    """Return the settings of each OTLP exporter in a file, as the SDK builds them.

    The SDK takes endpoint, headers, compression and timeout from the file, and everything else from the variables.

    Args:
        file: Path of the file.
        environ: Environment variables.

    Raises:
        ImportError: The package ``opentelemetry-configuration`` is not installed.
        ConfigurationError: A setting cannot be used.
        Exception: The package cannot read the file.
    """
    package: Any = import_module("opentelemetry.configuration")
    config = package.load_config_file(file)
    return [
        _settings(signal, protocol, exporter, environ)
        for signal, (provider, parts) in _PARTS.items()
        for part in getattr(getattr(config, provider, None), parts, None) or ()
        for protocol, exporter in _exporters(part)
    ]


def _exporters(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield protocol and description of the OTLP exporter of a processor or reader."""
    for form in _FORMS:
        exporter = getattr(getattr(part, form, None), "exporter", None)
        for kind, protocol in _KINDS.items():
            if (found := getattr(exporter, kind, None)) is not None:
                yield protocol, found


def _settings(signal: str, protocol: str, exporter: Any, environ: Mapping[str, str]) -> OtlpSettings:
    own = f"{PREFIX}{signal.upper()}_"
    declared = {
        "ENDPOINT": exporter.endpoint,
        "COMPRESSION": exporter.compression,
        "TIMEOUT": None if exporter.timeout is None else exporter.timeout / 1000,
    }
    overrides = {own + name: str(value) for name, value in declared.items() if value is not None}
    found = OtlpSettings.from_environment(signal, {**environ, **overrides}, protocol=protocol)
    headers = _headers(exporter)
    return found if headers is None else replace(found, headers=headers)


def _headers(exporter: Any) -> dict[str, str] | None:
    """Return the declared headers; None if the variables decide. Their values are not URL-encoded."""
    if exporter.headers is None and exporter.headers_list is None:
        return None
    pairs = [entry.partition("=") for entry in (exporter.headers_list or "").split(",")]
    found = {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}
    return found | {each.name.lower(): each.value or "" for each in exporter.headers or ()}
