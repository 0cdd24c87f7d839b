"""HTTP GET with a timeout, for health checks and metrics pages; errors become None."""

import http.client
import ssl
from dataclasses import dataclass
from time import monotonic, time
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """HTTP response of a server.

    Args:
        status: HTTP status code.
        body: Decoded body, cut after ``most`` bytes.
        date: ``Date`` header as sent; empty if the header is missing.
        at: Local wall clock halfway between request and response, seconds since the Unix epoch.
        seconds: Duration of the request.
    """

    status: int
    body: str
    date: str
    at: float
    seconds: float


def get(url: str, timeout: float, most: int = 2**20) -> HttpResponse | None:
    """Send a GET request; return None if the connection fails or the response is not HTTP.

    Args:
        url: URL to request.
        timeout: Timeout of each socket operation, seconds.
        most: Maximum number of bytes to read from the body.
    """
    began, began_at = monotonic(), time()
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            response = connection.getresponse()
            body = response.read(most).decode("utf-8", errors="replace")
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, ssl.SSLError):
        return None
    # The server sets its Date header at some moment within the request; the middle is the best estimate of it.
    seconds = monotonic() - began
    return HttpResponse(response.status, body, response.headers.get("Date", ""), began_at + seconds / 2, seconds)
