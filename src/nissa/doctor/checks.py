"""Runs all checks of ``nissa doctor``.

Checks that wait for the network run concurrently. Each check has an error boundary: its exception becomes a finding.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from nissa.doctor import clock, collector
from nissa.doctor.check_result import CheckResult, Level, merged_by_signal
from nissa.doctor.endpoints import judge
from nissa.doctor.export_checks import TIMEOUT, EndpointResult, Target, check_exports, run_in_parallel
from nissa.doctor.http import HttpResponse, get
from nissa.doctor.pipeline import check_producer, providers_of_a_run
from nissa.doctor.secrets import Secrets
from nissa.doctor.settings import check_configuration, check_settings, disabled, shown
from nissa.doctor.system import check_devices, check_files
from nissa.doctor.versions import check_versions
from nissa.otel.export.probing import build_exporter, exporters_of
from nissa.otel.export.ways import PROTOCOLS, asked_for, ways
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
        protocol: Protocol of that endpoint, ``grpc`` or ``http/protobuf``.
        health: URL of the collector's health check.
        counters: URL of the collector's own metrics.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    named = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in SIGNALS} if endpoint is not None else {}
    with asked_for(endpoint, protocol, named), _quiet():
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
    targets, problems = _targets(environ)
    yield from merged_by_signal(problems)
    with providers_of_a_run(config.profile_name if config else "standard") as providers:
        if isinstance(providers, Providers) and environ.get("OTEL_CONFIG_FILE"):
            targets = [Target(*each) for each in exporters_of(providers)]
        # Start the network requests before the checks that use the CPU, such as importing torch, so that both overlap.
        reached = _begin(lambda: check_exports(targets, environ))
        responses = _begin(lambda: _get_all(targets, health, counters))
        devices = _in_error_boundary("devices", lambda: [check_devices()])
        joined = (
            [providers]
            if isinstance(providers, CheckResult)
            else _in_error_boundary("metrics", lambda: _join(providers))
        )
        yield from _in_error_boundary("endpoint", lambda: _judged_exports(reached.result(), environ))
        if targets or health or counters:
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


def _targets(environ: Mapping[str, str]) -> tuple[list[Target], list[CheckResult]]:
    """Return the exporters to test, and findings for exporters that cannot be built."""
    targets, problems = [], []
    undeclared = [] if disabled(environ) or environ.get("OTEL_CONFIG_FILE") else ways(environ)
    for way in undeclared:
        if way.protocol not in PROTOCOLS:
            continue
        try:
            targets.append(Target(way.signal, way.protocol, build_exporter(way.signal, way.protocol)))
        except Exception as error:  # noqa: BLE001 - the SDK raises whatever its parts do
            found = f"The exporter cannot be built: {error}"
            advice = "nissa.start() would raise this; correct the variable."
            problems.append(CheckResult("endpoint", Level.ERROR, found, advice, (way.signal,)))
    return targets, problems


def _join(providers: Providers) -> list[CheckResult]:
    return [check_producer(providers.meter)]


def _judged_exports(exports: list[EndpointResult], environ: Mapping[str, str]) -> list[CheckResult]:
    return merged_by_signal(result for each in exports for result in judge(each, environ))


def _get_all(targets: list[Target], health: str | None, counters: str | None) -> dict[str, HttpResponse | None]:
    """Request the health and the internal metrics of each collector, concurrently."""
    urls = [url for pair in _urls(targets, health, counters) for url in pair]
    found_responses = run_in_parallel([lambda url=url: get(url, TIMEOUT) for url in urls], 2 * TIMEOUT)  # type: ignore[misc]
    return dict(zip(urls, found_responses, strict=True))


def _urls(targets: list[Target], health: str | None, counters: str | None) -> list[tuple[str, str]]:
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


def _host(target: Target) -> str:
    host, _ = EndpointResult(target, None, None).address
    return f"[{host}]" if ":" in host else host


def _collector(
    exports: list[EndpointResult], responses: dict[str, HttpResponse | None], health: str | None, counters: str | None
) -> Iterator[CheckResult]:
    readings = [
        clock.Reading(_server(each), each.attempt.headers["date"], each.attempt.at, each.attempt.seconds)
        for each in exports
        if each.attempt and "date" in each.attempt.headers
    ]
    targets = [each.target for each in exports]
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
