"""Redaction of credentials from texts that libraries and receivers write."""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

from nissa.printable import printable

HIDDEN: Final = "***"
_SHORTEST: Final = 3
"""Minimum length of a secret; shorter values would match parts of ordinary words."""
_LONGEST_REASON: Final = 300
_SCHEMES: Final = frozenset({"basic", "bearer", "digest", "token", "apikey"})
"""Authentication schemes that precede the secret in a header; they are not secret."""
_USER_INFO: Final = re.compile(r"(?<=://)[^\s/'\"<>]*@")
_QUERY: Final = re.compile(r"(://[^\s?#'\"<>]*|/v1/(?:traces|metrics|logs))[?#][^\s'\"<>)]*")


class Redactor:
    """Replaces known secrets, user info and queries of URLs in text.

    Args:
        secrets: Secrets; each is also found in the encodings in which a library or receiver may repeat it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {variant for secret in secrets for variant in _variants(secret) if len(variant) >= _SHORTEST}
        # Longest first: if a shorter secret inside a longer one were replaced first, the rest would be printed.
        texts = sorted(found, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, texts)), re.IGNORECASE) if texts else None

    def clean(self, text: str) -> str:
        """Return text on one line and without credentials, safe to print and cut to a length that fits a message."""
        line = " ".join(self.hide(text).split())
        hidden = self.hide(line)  # Collapsed white space may have made a secret that contains some.
        return printable(_QUERY.sub(r"\1", _USER_INFO.sub("", hidden)), _LONGEST_REASON)

    def hide(self, text: str) -> str:
        """Return text with known secrets replaced."""
        return self._known.sub(HIDDEN, text) if self._known else text


def public_url(url: str) -> str:
    """Return a URL, or ``host:port``, without user info, query and fragment.

    Example:
        >>> public_url("https://user:password@collector:4318/v1/traces?api_key=secret")
        'https://collector:4318/v1/traces'
    """
    scheme, separator, rest = url.rpartition("://") if "://" in url else ("", "", url)
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = location.partition("/")
    if "@" in path and "@" not in authority:  # an unquoted slash in a password
        authority, slash, path = path.rpartition("@")[2].partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def secrets_of_url(url: str) -> Iterator[str]:
    """Yield user info, password, and the query with its values."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError:
        return
    user_info = parts.netloc.rpartition("@")[0]
    user, _, password = user_info.partition(":")
    if user_info:
        yield from (user_info, unquote(user_info), password or user)
        yield b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    yield from filter(None, (parts.query, parts.fragment))
    yield from (value for _, value in parse_qsl(parts.query))


def secrets_of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of headers, and each word of a value except an authentication scheme."""
    for value in headers.values():
        yield value
        yield from (word for word in value.split() if word.lower() not in _SCHEMES)


def _variants(secret: str) -> set[str]:
    plain = {secret, unquote(secret), unquote_plus(secret)}
    found = set(plain)
    for text in plain:
        found |= {
            quote(text, errors="replace"),
            quote(text, safe="", errors="replace"),
            quote_plus(text, errors="replace"),
        }
        found |= {repr(text)[1:-1], json.dumps(text)[1:-1], html.escape(text)}
        found.add(text.encode("latin-1", "replace").decode("utf-8", "replace"))
    return {" ".join(text.split()) for text in found} | {text.strip() for text in found}
