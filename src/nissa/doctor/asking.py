"""Asks for a page over HTTP, in bounded time and with no errors but None."""

import http.client
import ssl
from dataclasses import dataclass
from time import monotonic, time
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Args:
        status: Its number.
        body: Its text, the first of it.
        date: What the server says that the time is, as it says it; empty where it says nothing.
        at: Our wall clock halfway through, seconds since the Unix epoch.
        seconds: How long it took.
    """

    status: int
    body: str
    date: str
    at: float
    seconds: float


def ask(url: str, timeout: float, most: int = 2**20) -> Answer | None:
    """Get a page; None where nothing answers, or what answers is not HTTP."""
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
    seconds = monotonic() - began
    return Answer(response.status, body, response.headers.get("Date", ""), began_at + seconds / 2, seconds)
