"""Settings check: the effect of the OTEL_* variables, and mistakes in them that need no network access to detect."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Final

from nissa.config import TelemetryConfig, load
from nissa.doctor.check_result import CheckResult, Level, merged_by_signal
from nissa.doctor.variables import opentelemetry_names
from nissa.errors import NissaError
from nissa.otel.otlp import headers
from nissa.otel.otlp.selection import SelectedExporter, selected_exporters
from nissa.otel.otlp.settings import GRPC, PROTOCOLS
from nissa.otel.setup import SIGNALS, check_exporters, configured

CHECK: Final = "settings"
_SECONDS: Final = 600.0
"""Longest plausible timeout; a larger number was probably meant as milliseconds."""
_SECRET: Final = "_HEADERS"  # noqa: S105 - the end of a variable's name
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
# The SDK recognises only ``true``. These values look as if they disabled it but do not, so that they deserve a warning.
_TRUE: Final = ("1", "yes", "on", "t", "y")


def check_configuration(environ: Mapping[str, str]) -> tuple[TelemetryConfig | None, CheckResult]:
    """Return the configuration of a run without arguments, and the finding; the configuration is None if invalid."""
    try:
        config = load(environ=environ)
    except NissaError as error:
        return None, CheckResult(
            "configuration", Level.ERROR, str(error), "nissa.start() would raise this; correct the setting."
        )
    found = f"A run without arguments uses the profile {config.profile_name!r}."
    return config, CheckResult("configuration", Level.OK, found, "")


def shown(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the OpenTelemetry variables that are set, with the values of headers replaced."""
    return {
        name: "***" if name.endswith(_SECRET) else value
        for name, value in sorted(environ.items())
        if name.startswith("OTEL_") and value
    }


def disabled(environ: Mapping[str, str]) -> bool:
    """Return whether ``OTEL_SDK_DISABLED`` is true."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def check_settings(environ: Mapping[str, str]) -> list[CheckResult]:
    """Return the effect of the OpenTelemetry variables, and mistakes in them."""
    return [*_switch(environ), *_destinations(environ), *merged_by_signal(_mistakes(environ))]


def _switch(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    value = environ.get("OTEL_SDK_DISABLED", "").strip()
    if disabled(environ):
        found = "OTEL_SDK_DISABLED is true: a run sends and writes nothing, whatever else is set."
        yield CheckResult(CHECK, Level.WARNING, found, "Unset it, if telemetry is wanted.")
    elif value.lower() in _TRUE:
        found = f"OTEL_SDK_DISABLED is {value!r}, which disables nothing."
        yield CheckResult(CHECK, Level.WARNING, found, "Write true, if telemetry is not wanted; else unset it.")


def _destinations(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    if disabled(environ):
        return
    if file := environ.get("OTEL_CONFIG_FILE"):
        yield from _declared(file)
    elif not configured(environ):
        yield CheckResult(
            CHECK,
            Level.NOTE,
            "No exporter is configured: a run writes OTLP JSON lines to files.",
            "To send them to a collector, set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4317.",
        )
    else:
        yield from merged_by_signal(_exporters(environ))


def _declared(file: str) -> Iterator[CheckResult]:
    if not os.access(file, os.R_OK):
        found, advice = f"OTEL_CONFIG_FILE names {file}, which cannot be read.", "Correct the path, or unset it."
        yield CheckResult(CHECK, Level.ERROR, found, advice)
    elif find_spec("opentelemetry.configuration") is None:
        found = "OTEL_CONFIG_FILE is set, and the package that reads it is not installed."
        yield CheckResult(CHECK, Level.ERROR, found, "pip install opentelemetry-configuration")
    else:
        yield CheckResult(CHECK, Level.OK, f"{file} declares everything; the SDK reads no other OTEL_* variable.")


def _exporters(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    found = selected_exporters(environ)
    for each in found:
        yield from _exporter(each)
    for signal in SIGNALS:
        if not environ.get(f"OTEL_{signal}_EXPORTER") and all(each.signal != signal.lower() for each in found):
            yield CheckResult(
                CHECK,
                Level.WARNING,
                f"{signal.lower()} go nowhere: other signals name an exporter, and OTEL_{signal}_EXPORTER is not set.",
                f"Set OTEL_{signal}_EXPORTER=otlp, or none if that is meant.",
            )


def _exporter(selected: SelectedExporter) -> Iterator[CheckResult]:
    variable = f"OTEL_{selected.signal.upper()}_EXPORTER"
    try:
        check_exporters({variable: selected.exporter})
    except NissaError as error:
        yield CheckResult(
            CHECK, Level.ERROR, str(error), "nissa.start() would raise this; correct the name, or install it."
        )
        return
    if selected.protocol not in (None, *PROTOCOLS):
        found = f"{selected.signal}: the protocol {selected.protocol!r} is no OTLP protocol."
        advice = f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {' or '.join(PROTOCOLS)}."
        yield CheckResult(CHECK, Level.ERROR, found, advice)
        return
    over = f" over {selected.protocol}" if selected.protocol else ""
    yield CheckResult(CHECK, Level.OK, f"Exported by {selected.exporter}{over}.", signals=(selected.signal,))
    if selected.exporter == "prometheus":
        yield CheckResult(
            CHECK,
            Level.NOTE,
            "Prometheus pulls: a scrape shows the newest values and percentiles of gradients, no steps in between.",
            "Send OTLP to a collector to keep each step.",
        )


def _mistakes(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    known = opentelemetry_names()
    for name in sorted(name for name in environ if name.startswith("OTEL_") and name not in known):
        if close := get_close_matches(name, known, n=1, cutoff=0.9):
            yield CheckResult(
                CHECK, Level.WARNING, f"{name} is no variable that the SDK reads.", f"Was {close[0]} meant?"
            )
    for part in ("", *(f"{signal}_" for signal in SIGNALS)):
        yield from _of_otlp(f"OTEL_EXPORTER_OTLP_{part}", environ)
    bundle = next((name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if environ.get(name)), None)
    certificates = [
        name for name in environ if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("_CERTIFICATE")
    ]
    if bundle and certificates and any(each.protocol not in (None, GRPC) for each in selected_exporters(environ)):
        found = f"{bundle} is set, and wins over {certificates[0]} for exports over HTTP."
        yield CheckResult(CHECK, Level.WARNING, found, f"Unset {bundle} where telemetry is sent, if that is not meant.")


def _of_otlp(prefix: str, environ: Mapping[str, str]) -> Iterator[CheckResult]:
    timeout = environ.get(f"{prefix}TIMEOUT", "")
    try:
        seconds = float(timeout or 0)
    except ValueError:
        yield CheckResult(
            CHECK, Level.ERROR, f"{prefix}TIMEOUT is {timeout!r}, which is no number.", "Give seconds, such as 10."
        )
    else:
        if seconds > _SECONDS:
            found = f"{prefix}TIMEOUT is {timeout}: Python reads seconds, so that is {seconds / 3600:.1f} hours."
            yield CheckResult(CHECK, Level.WARNING, found, "Give seconds, such as 10.")
    for number, entry in enumerate(environ.get(f"{prefix}HEADERS", "").split(","), start=1):
        if entry.strip() and not headers.parse(entry)[0]:
            found = f"Entry {number} of {prefix}HEADERS is no name=value pair, and is not sent."
            yield CheckResult(
                CHECK, Level.WARNING, found, "Write name=value pairs, separated by commas, values URL-encoded."
            )
    for name in _FILES:
        file = environ.get(prefix + name)
        if file and not os.access(file, os.R_OK):
            yield CheckResult(
                CHECK, Level.ERROR, f"{prefix}{name} names {file}, which cannot be read.", "Correct the path."
            )
