"""Outcome of one export request, and the meaning of HTTP statuses and gRPC codes.

Source: OpenTelemetry Protocol specification, "OTLP/HTTP Response" and "OTLP/gRPC Response".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from time import time
from typing import Final

RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
RETRYABLE_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
"""gRPC codes after which a request may be sent again; ``RESOURCE_EXHAUSTED`` only together with a pause."""
_ENDPOINT_STATUSES: Final = frozenset({401, 403, 404, 405, 407, 415})
_ENDPOINT_CODES: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})


class Outcome(Enum):
    """What a receiver did with a request."""

    DELIVERED = auto()
    """Accepted; `SendResult.rejected` items of it may still have been rejected."""
    REFUSED = auto()
    """Rejected; the same request would be rejected again."""
    RETRY = auto()
    """Not accepted now, or no receiver was reached."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """Result of one request.

    Args:
        outcome: What the receiver did.
        reason: Explanation of a failure or of rejected items, on one line and without credentials; empty if all was accepted.
        rejected: Number of items of a delivered request that the receiver rejected (partial success).
        retry_after: Pause before the next attempt that the receiver asks for, seconds; None if it does not. Not bounded.
        endpoint_fault: The cause is the endpoint and not this request (credentials, path, redirect), so that every other
            request would fail in the same way.
        status: HTTP status, or name of the gRPC code; None without a response.
        headers: Headers of an HTTP response that describe it (``content-type``, ``date``, ``location``), by lower-case
            name and without credentials.
    """

    outcome: Outcome
    reason: str = ""
    rejected: int = 0
    retry_after: float | None = None
    endpoint_fault: bool = False
    status: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


def of_status(status: int) -> tuple[Outcome, bool]:
    """Return the outcome of an HTTP status, and whether the endpoint is the cause.

    Redirects are refused: the official exporter counts them as delivered, although no receiver got the request.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome.DELIVERED, False
    if status in RETRYABLE_STATUSES:
        return Outcome.RETRY, False
    redirected = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return Outcome.REFUSED, redirected or status in _ENDPOINT_STATUSES


def of_code(code: str, retryable: frozenset[str], pause: float | None) -> tuple[Outcome, bool]:
    """Return the outcome of a gRPC code, and whether the endpoint is the cause.

    Args:
        code: Name of the code, such as ``UNAVAILABLE``.
        retryable: Codes after which a request may be sent again.
        pause: Pause that the receiver asks for. It makes ``RESOURCE_EXHAUSTED`` retryable, which otherwise means that the
            request is too large.
    """
    if code in retryable or (code == "RESOURCE_EXHAUSTED" and pause is not None):
        return Outcome.RETRY, False
    return Outcome.REFUSED, code in _ENDPOINT_CODES


def retry_after_seconds(header: str | None) -> float | None:
    """Return the pause of a ``Retry-After`` header, which is a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return _until(text)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return max(0.0, moment.timestamp() - time()) if moment.tzinfo else None
    except (OverflowError, TypeError, ValueError):
        return None
