"""Redaction of secrets from settings in printed output."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote, urlsplit

from nissa.doctor.check_result import CheckResult

HIDDEN: Final = "***"
_SHORTEST: Final = 3
"""Minimum length of a secret; shorter values would match parts of ordinary words."""
_SCHEMES: Final = frozenset({"basic", "bearer", "digest", "token", "apikey"})
"""Authentication schemes that precede the secret in a header; they are not secret."""


class Secrets:
    """Redacts header values and URL passwords from text.

    Args:
        environ: Environment variables; values of ``OTEL_*_HEADERS`` and passwords in URLs are secret.
        urls: Further URLs, such as command-line arguments.
    """

    def __init__(self, environ: Mapping[str, str], urls: Iterable[str] = ()) -> None:
        found: set[str] = set()
        for name, value in environ.items():
            if name.startswith("OTEL_") and name.endswith("_HEADERS"):
                found |= _values(value)
        for url in (*environ.values(), *urls):
            found |= _credentials(url)
        # Longest first: if a shorter secret inside a longer one were replaced first, the rest would be printed.
        self._texts = sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return the text with all secrets replaced."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text

    def cleared(self, finding: CheckResult) -> CheckResult:
        """Return the finding with all secrets replaced."""
        return replace(finding, found=self.hide(finding.found), advice=self.hide(finding.advice))


def _values(headers: str) -> set[str]:
    """Return the values of headers, raw and URL-decoded, and each word of a value.

    Example: ``authorization=Bearer%20abc`` gives ``Bearer%20abc``, ``Bearer abc`` and ``abc``.
    """
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
