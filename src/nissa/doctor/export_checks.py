"""Test export to every endpoint: send an empty request to all of them concurrently, and probe those that fail."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic, time
from typing import Final, TypeVar
from urllib.parse import urlsplit

from nissa.doctor.probe import ProbeResult, TlsFiles, probe
from nissa.otel.otlp.client import OtlpClient
from nissa.otel.otlp.outcome import Outcome, SendResult
from nissa.otel.otlp.settings import GRPC, OtlpSettings

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
class EndpointResult:
    """Result of a test export.

    Args:
        settings: Settings of the client that was tested.
        sent: Result of the export; None after a timeout.
        seconds: Duration of the export.
        at: Local wall clock halfway through the export, seconds since the Unix epoch.
        probed: Result of the probe; None if the export was conclusive.
    """

    settings: OtlpSettings
    sent: SendResult | None = None
    seconds: float = 0.0
    at: float = 0.0
    probed: ProbeResult | None = None

    @property
    def arrived(self) -> bool:
        """Whether the endpoint accepted the export."""
        return self.sent is not None and self.sent.outcome is Outcome.DELIVERED

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        settings = self.settings
        return address(settings.target if settings.protocol == GRPC else settings.endpoint, settings.protocol)


def address(endpoint: str, protocol: str) -> tuple[str, int]:
    """Return host and port of an exporter's endpoint, which is a URL or, for gRPC, ``host:port``."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port
    except ValueError:  # The port is not a number.
        return "", 0
    return parts.hostname or "", port or (443 if protocol == GRPC else _PORTS.get(parts.scheme, 80))


def check_exports(
    clients: Sequence[OtlpClient], environ: Mapping[str, str], timeout: float = TIMEOUT
) -> list[EndpointResult]:
    """Test all clients concurrently.

    Args:
        clients: Clients to test.
        environ: Environment variables, for the TLS files.
        timeout: Timeout of an export, seconds; with the probe, a test ends after ``1 + _PROBE_TIMEOUTS`` times this at
            most.
    """

    def job(client: OtlpClient) -> Callable[[], EndpointResult]:
        return lambda: _check_export(client, environ, timeout)

    found = run_in_parallel([job(client) for client in clients], timeout * (1 + _PROBE_TIMEOUTS))
    return [each or EndpointResult(client.settings) for client, each in zip(clients, found, strict=True)]


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


def _check_export(client: OtlpClient, environ: Mapping[str, str], timeout: float) -> EndpointResult:
    began, began_at = monotonic(), time()
    sent = client.send(b"", gzipped=False, timeout=timeout)
    seconds = monotonic() - began
    client.close()
    result = EndpointResult(client.settings, sent, seconds, began_at + seconds / 2)
    host, port = result.address
    if result.arrived or _is_conclusive(client.settings, sent) or not host:
        return result
    files = tls_files(client.settings, environ)
    return replace(
        result, probed=probe(host, port, secure=client.settings.secure, tls_files=files, timeout=timeout / 2)
    )


def _is_conclusive(settings: OtlpSettings, sent: SendResult) -> bool:
    # Status 400 is ambiguous: a TLS server returns it for a request without TLS.
    return sent.status in _CONCLUSIVE if settings.protocol == GRPC else sent.status not in (None, "400")


def tls_files(settings: OtlpSettings, environ: Mapping[str, str]) -> TlsFiles:
    """Return the TLS files of a client; for HTTP, the bundles of ``requests`` override its certificate setting."""
    authorities = settings.certificate
    if settings.protocol != GRPC:
        authorities = next((environ[name] for name in _BUNDLES if environ.get(name)), authorities)
    return TlsFiles(authorities, settings.client_key, settings.client_certificate)
