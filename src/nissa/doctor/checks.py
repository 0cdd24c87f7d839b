"""Runs all checks of ``nissa doctor``.

Checks that wait for the network run concurrently. Each check has an error boundary: its exception becomes a finding.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TypeVar

from nissa.doctor import clock, collector
from nissa.doctor.check_result import CheckResult, Level, merged_by_signal
from nissa.doctor.endpoints import judge
from nissa.doctor.export_checks import TIMEOUT, EndpointResult, check_exports, run_in_parallel
from nissa.doctor.http import HttpResponse, get
from nissa.doctor.overrides import overridden
from nissa.doctor.pipeline import check_metrics, providers_of_a_run
from nissa.doctor.secrets import Secrets
from nissa.doctor.settings import check_configuration, check_settings, disabled, shown
from nissa.doctor.system import check_devices, check_files
from nissa.doctor.versions import check_versions
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.declared import declared_settings
from nissa.otel.otlp.selection import selected_exporters
from nissa.otel.otlp.settings import PROTOCOLS, OtlpSettings
from nissa.otel.setup import SIGNALS, Providers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Result of all checks.

    Args:
        findings: All findings, in the order of the checks.
        settings: OpenTelemetry variables that are set, with secrets replaced.
    """

    findings: tuple[CheckResult, ...]
    settings: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return all(result.level < Level.ERROR for result in self.findings)


def run_checks(
    *, endpoint: str | None = None, protocol: str | None = None, health: str | None = None, counters: str | None = None
) -> DoctorReport:
    """Run all checks; the duration is that of importing torch, or several seconds if endpoints do not respond.

    Args:
        endpoint: OTLP endpoint to check for all signals, instead of those in the environment variables.
        protocol: Protocol of that endpoint: ``grpc``, ``http/protobuf`` or ``http/json``.
        health: URL of the collector's health check.
        counters: URL of the collector's own metrics.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    named = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in SIGNALS} if endpoint is not None else {}
    with overridden(endpoint, protocol, named), _quiet():
        secrets = Secrets(os.environ, filter(None, (endpoint, health, counters)))
        findings = tuple(map(secrets.cleared, _run_checks(os.environ, health, counters)))
        settings = {name: secrets.hide(value) for name, value in shown(os.environ).items()}
    return DoctorReport(findings, settings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log messages of libraries: their errors are reported as findings."""
    # gRPC's C core writes to standard error itself, so that disabling Python's logging does not affect it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _run_checks(environ: Mapping[str, str], health: str | None, counters: str | None) -> Iterator[CheckResult]:
    yield from _in_error_boundary("versions", check_versions)
    config, result = check_configuration(environ)
    yield result
    yield from _in_error_boundary("settings", lambda: check_settings(environ))
    clients, problems = _clients(environ)
    yield from merged_by_signal(problems)
    with providers_of_a_run(config.profile_name if config else "standard") as providers:
        # Start the network requests before the checks that use the CPU, such as importing torch, so that both overlap.
        reached = _begin(lambda: check_exports(clients, environ))
        responses = _begin(lambda: _get_all([each.settings for each in clients], health, counters))
        devices = _in_error_boundary("devices", lambda: [check_devices()])
        joined = (
            [providers]
            if isinstance(providers, CheckResult)
            else _in_error_boundary("metrics", lambda: _join(providers))
        )
        yield from _in_error_boundary("endpoint", lambda: _judged_exports(reached.result(), environ))
        if clients or health or counters:
            yield from _in_error_boundary(
                "collector", lambda: _collector(reached.result(), responses.result(), health, counters)
            )
        yield from joined
        if isinstance(providers, Providers) and providers.folder is not None and config is not None:
            yield from _in_error_boundary("files", lambda: [check_files(Path(config.files.directory))])
        yield from devices


def _in_error_boundary(check: str, job: Callable[[], Iterable[CheckResult]]) -> list[CheckResult]:
    try:
        return list(job())
    except Exception as error:  # noqa: BLE001 - a check that fails must not keep the others from being made
        found = f"This check itself failed ({type(error).__name__}: {error})."
        return [CheckResult(check, Level.ERROR, found, "Please report it, with the output of nissa doctor --json.")]


def _begin(job: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - the caller of result() receives it
            future.set_exception(error)

    # Daemon: a request that hangs must not keep the process from exiting. ThreadPoolExecutor would join it at exit.
    Thread(target=run, daemon=True).start()
    return future


def _clients(environ: Mapping[str, str]) -> tuple[list[OtlpClient], list[CheckResult]]:
    """Return a client for each OTLP exporter of a run, and findings for those that cannot be built."""
    clients, problems = [], []
    for signal, build in _selected(environ):
        try:
            clients += [OtlpClient(settings) for settings in build()]
        except Exception as error:  # noqa: BLE001 - the package that reads files raises errors of its own
            found = f"The exporter cannot be built: {error}"
            advice = "nissa.start() would raise this; correct the variable."
            problems.append(CheckResult("endpoint", Level.ERROR, found, advice, (signal,) if signal else ()))
    return clients, problems


def _selected(environ: Mapping[str, str]) -> Iterator[tuple[str | None, Callable[[], list[OtlpSettings]]]]:
    """Yield signal and settings of the exporters of a run; a file declares those of all signals."""
    file = environ.get("OTEL_CONFIG_FILE")
    if disabled(environ):
        return
    if file:
        if find_spec("opentelemetry.configuration") is not None and os.access(file, os.R_OK):
            yield None, lambda: declared_settings(file, environ)
        return
    for each in selected_exporters(environ):
        if each.protocol in PROTOCOLS:
            yield each.signal, partial(_settings, each.signal, each.protocol, environ)


def _settings(signal: str, protocol: str, environ: Mapping[str, str]) -> list[OtlpSettings]:
    return [OtlpSettings.from_environment(signal, environ, protocol=protocol)]


def _join(providers: Providers) -> list[CheckResult]:
    return [check_metrics(providers)]


def _judged_exports(exports: list[EndpointResult], environ: Mapping[str, str]) -> list[CheckResult]:
    return merged_by_signal(result for each in exports for result in judge(each, environ))


def _get_all(targets: list[OtlpSettings], health: str | None, counters: str | None) -> dict[str, HttpResponse | None]:
    """Request the health and the internal metrics of each collector, concurrently."""
    urls = [url for pair in _urls(targets, health, counters) for url in pair]
    found_responses = run_in_parallel([lambda url=url: get(url, TIMEOUT) for url in urls], 2 * TIMEOUT)  # type: ignore[misc]
    return dict(zip(urls, found_responses, strict=True))


def _urls(targets: list[OtlpSettings], health: str | None, counters: str | None) -> list[tuple[str, str]]:
    """Return the URLs of the health check and of the internal metrics, per collector."""
    hosts = dict.fromkeys(_host(target) for target in targets)
    found = [
        (
            health or f"http://{host}:{collector.HEALTH_PORT}/",
            counters or f"http://{host}:{collector.COUNTERS_PORT}/metrics",
        )
        for host in hosts
        if host
    ]
    return list(dict.fromkeys(found))


def _host(settings: OtlpSettings) -> str:
    host, _ = EndpointResult(settings).address
    return f"[{host}]" if ":" in host else host


def _collector(
    exports: list[EndpointResult], responses: dict[str, HttpResponse | None], health: str | None, counters: str | None
) -> Iterator[CheckResult]:
    readings = [
        clock.Reading(_server(each), each.sent.headers["date"], each.at, each.seconds)
        for each in exports
        if each.sent and "date" in each.sent.headers
    ]
    targets = [each.settings for each in exports]
    judged: list[CheckResult] = []
    for health_url, counters_url in _urls(targets, health, counters):
        response = responses.get(health_url)
        judged.append(collector.judge_health(health_url, response, asked_for=health is not None))
        judged += collector.judge_counters(counters_url, responses.get(counters_url), asked_for=counters is not None)
        if response is not None:
            readings.append(clock.Reading(health_url, response.date, response.at, response.seconds))
    if any(each.arrived for each in exports) or readings:
        yield from merged_by_signal(clock.compare(readings))
    yield from merged_by_signal(judged)


def _server(exports: EndpointResult) -> str:
    host, port = exports.address
    return f"{host}:{port}"
