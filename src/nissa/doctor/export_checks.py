"""Test export to every endpoint: send an empty request to all of them concurrently, and probe those that fail."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from nissa.doctor.probe import ProbeResult, TlsFiles, probe
from nissa.otel.export.probing import Attempt, attempt
from nissa.otel.export.ways import GRPC

TIMEOUT: Final = 2.0
"""Timeout of a test export, seconds."""
_PROBE_TIMEOUTS: Final = 4.0
"""Time limit of a probe, as a multiple of the timeout: it has several waits, and DNS resolution has no timeout."""
_PORTS: Final = {"http": 80, "https": 443}
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables of the library ``requests``; they override the certificate setting of the HTTP exporter."""
_CONCLUSIVE: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "OK"})
"""gRPC status codes that only an OTLP server returns, so that no probe is needed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Exporter to test, with its signal and protocol."""

    signal: str
    protocol: str
    exporter: Any


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """Result of a test export.

    Args:
        target: Exporter that was tested.
        attempt: Outcome of the export; None after a timeout.
        probed: Result of the probe; None if the export was conclusive.
    """

    target: Target
    attempt: Attempt | None
    probed: ProbeResult | None

    @property
    def arrived(self) -> bool:
        """Whether the endpoint accepted the export."""
        status = self.attempt.status if self.attempt else None
        return status == "OK" or (status or "").startswith("2")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        return address(str(getattr(self.target.exporter, "_endpoint", "")), self.target.protocol)


def address(endpoint: str, protocol: str) -> tuple[str, int]:
    """Return host and port of an exporter's endpoint, which is a URL or, for gRPC, ``host:port``."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port
    except ValueError:  # The port is not a number.
        return "", 0
    return parts.hostname or "", port or (443 if protocol == GRPC else _PORTS.get(parts.scheme, 80))


def check_exports(
    targets: Sequence[Target], environ: Mapping[str, str], timeout: float = TIMEOUT
) -> list[EndpointResult]:
    """Test all exporters concurrently.

    Args:
        targets: Exporters to test.
        environ: Environment variables, for the TLS files.
        timeout: Timeout of an export, seconds; with the probe, a test ends after ``1 + _LOOKS`` times this at most.
    """

    def job(target: Target) -> Callable[[], EndpointResult]:
        return lambda: _check_export(target, environ, timeout)

    found = run_in_parallel([job(target) for target in targets], timeout * (1 + _PROBE_TIMEOUTS))
    return [each or EndpointResult(target, None, None) for target, each in zip(targets, found, strict=True)]


def run_in_parallel(jobs: Iterable[Callable[[], T]], seconds: float) -> list[T | None]:
    """Run jobs in parallel threads, and wait for all of them up to a common deadline.

    The result of a job is None if it raised or did not finish in time. Its thread is a daemon and is left running.
    """
    results: dict[int, T] = {}

    def run(number: int, job: Callable[[], T]) -> None:
        with suppress(Exception):  # Otherwise the thread prints a traceback.
            results[number] = job()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    deadline = monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return [results.get(number) for number in range(len(threads))]


def _check_export(target: Target, environ: Mapping[str, str], timeout: float) -> EndpointResult:
    done = attempt(target.signal, target.protocol, target.exporter, timeout)
    result = EndpointResult(target, done, None)
    if result.arrived or _is_conclusive(done):
        return result
    host, port = result.address
    if not host:
        return result
    return EndpointResult(
        target, done, probe(host, port, secure=done.secure, tls_files=tls_files(target, environ), timeout=timeout / 2)
    )


def _is_conclusive(done: Attempt) -> bool:
    # Status 400 is ambiguous: a TLS server returns it for a request without TLS.
    return done.status in _CONCLUSIVE if done.protocol == GRPC else done.status not in (None, "400")


def tls_files(target: Target, environ: Mapping[str, str]) -> TlsFiles:
    """Return the TLS files of an exporter, by the precedence that the exporter itself applies."""
    own, general = f"OTEL_EXPORTER_OTLP_{target.signal.upper()}_", "OTEL_EXPORTER_OTLP_"
    # The gRPC exporter reads key and certificate only together with a CA file of the same scope (signal or general).
    if target.protocol == GRPC:
        prefix = own if environ.get(f"{own}CERTIFICATE") else general
        if not environ.get(f"{prefix}CERTIFICATE"):
            return TlsFiles()
        return TlsFiles(
            *(environ.get(f"{prefix}{name}") for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"))
        )
    found = [
        environ.get(f"{own}{name}") or environ.get(f"{general}{name}")
        for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    ]
    bundle = next((environ[name] for name in _BUNDLES if environ.get(name)), found[0])
    return TlsFiles(bundle, found[1], found[2])
