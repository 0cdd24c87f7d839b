"""Keeps what is secret in settings out of what is printed."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote, urlsplit

from nissa.doctor.finding import Finding

HIDDEN: Final = "***"
_SHORTEST: Final = 3
"""A shorter value is no secret, and would be found within other words."""
_SCHEMES: Final = frozenset({"basic", "bearer", "digest", "token", "apikey"})
"""What may stand before a secret in a header, and is none."""


class Secrets:
    """Knows what must not be printed.

    Args:
        environ: Whose headers, and whose passwords within URLs, are secret.
        urls: Further URLs, such as those that were given as arguments.
    """

    def __init__(self, environ: Mapping[str, str], urls: Iterable[str] = ()) -> None:
        found: set[str] = set()
        for name, value in environ.items():
            if name.startswith("OTEL_") and name.endswith("_HEADERS"):
                found |= _values(value)
        for url in (*environ.values(), *urls):
            found |= _credentials(url)
        # The longest first, or what is left of one that contains another would be shown.
        self._texts = sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return the text without them."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text

    def cleared(self, finding: Finding) -> Finding:
        """Return a finding without them."""
        return replace(finding, found=self.hide(finding.found), advice=self.hide(finding.advice))


def _values(headers: str) -> set[str]:
    """Return what stands behind the names of headers, as it is written and as it is meant, and each word of it."""
    found: set[str] = set()
    for entry in headers.split(","):
        name, equals, value = entry.partition("=")
        for text in (value if equals else name, entry if not equals else value):
            found |= {text.strip(), unquote(text).strip()}
    return found | {word for text in found for word in re.split(r"\s+", text) if word.lower() not in _SCHEMES}


def _credentials(url: str) -> set[str]:
    if "@" not in url or "://" not in url:
        return set()
    try:
        parts = urlsplit(url)
    except ValueError:
        return set()
    userinfo = parts.netloc.rpartition("@")[0]
    return {userinfo, unquote(userinfo), *filter(None, (parts.password, unquote(parts.password or "")))} - {""}
