"""Tries every endpoint at once, with an export that is empty, and looks closer at those that do not take it."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from nissa.backends.otel.probing import Attempt, attempt
from nissa.backends.otel.ways import GRPC
from nissa.doctor.wire import Identity, Seen, look

PATIENCE: Final = 2.0
"""Seconds that an endpoint has to answer, and then to show what it is."""
_LOOKS: Final = 4.0
"""The same times over which a look may take, since it may be several waits, and the name's resolution, which has no bound."""
_PORTS: Final = {"http": 80, "https": 443}
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""What the HTTP exporter's library prefers to the exporter's own setting."""
_CLEAR: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "OK"})
"""gRPC's answers that only the right server gives."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """An exporter to try."""

    signal: str
    protocol: str
    exporter: Any


@dataclass(frozen=True, slots=True)
class Tried:
    """An endpoint, and what became of the attempt.

    Args:
        target: What was tried.
        attempt: How it ended; None where it did not end in time.
        seen: What listens there; None where the attempt says it all.
    """

    target: Target
    attempt: Attempt | None
    seen: Seen | None

    @property
    def arrived(self) -> bool:
        """Whether the endpoint took the export."""
        status = self.attempt.status if self.attempt else None
        return status == "OK" or (status or "").startswith("2")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return address(str(getattr(self.target.exporter, "_endpoint", "")), self.target.protocol)


def address(endpoint: str, protocol: str) -> tuple[str, int]:
    """Return host and port of an endpoint as an exporter has it: of a URL, or for gRPC a bare ``host:port``."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port
    except ValueError:  # a port that is no number
        return "", 0
    return parts.hostname or "", port or (443 if protocol == GRPC else _PORTS.get(parts.scheme, 80))


def try_all(targets: Sequence[Target], environ: Mapping[str, str], patience: float = PATIENCE) -> list[Tried]:
    """Try targets at once, each as long as `PATIENCE` says twice over at most."""

    def job(target: Target) -> Callable[[], Tried]:
        return lambda: _try(target, environ, patience)

    found = in_time([job(target) for target in targets], patience * (1 + _LOOKS))
    return [each or Tried(target, None, None) for target, each in zip(targets, found, strict=True)]


def in_time(jobs: Iterable[Callable[[], T]], seconds: float) -> list[T | None]:
    """Run jobs at once and wait so long at most for all of them; None for each that has not ended, or failed."""
    results: dict[int, T] = {}

    def run(number: int, job: Callable[[], T]) -> None:
        with suppress(Exception):  # or the thread would print a traceback
            results[number] = job()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    deadline = monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return [results.get(number) for number in range(len(threads))]


def _try(target: Target, environ: Mapping[str, str], patience: float) -> Tried:
    done = attempt(target.signal, target.protocol, target.exporter, patience)
    tried = Tried(target, done, None)
    if tried.arrived or _says_enough(done):
        return tried
    host, port = tried.address
    if not host:
        return tried
    return Tried(
        target, done, look(host, port, secure=done.secure, identity=identity(target, environ), timeout=patience / 2)
    )


def _says_enough(done: Attempt) -> bool:
    # A server that wants TLS answers 400 to what is none.
    return done.status in _CLEAR if done.protocol == GRPC else done.status not in (None, "400")


def identity(target: Target, environ: Mapping[str, str]) -> Identity:
    """Return the files that an exporter uses for TLS, as it chooses them."""
    own, general = f"OTEL_EXPORTER_OTLP_{target.signal.upper()}_", "OTEL_EXPORTER_OTLP_"
    if target.protocol == GRPC:
        prefix = own if environ.get(f"{own}CERTIFICATE") else general
        if not environ.get(f"{prefix}CERTIFICATE"):
            return Identity()
        return Identity(
            *(environ.get(f"{prefix}{name}") for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"))
        )
    found = [
        environ.get(f"{own}{name}") or environ.get(f"{general}{name}")
        for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    ]
    bundle = next((environ[name] for name in _BUNDLES if environ.get(name)), found[0])
    return Identity(bundle, found[1], found[2])
