"""Headers in the format of ``OTEL_EXPORTER_OTLP_HEADERS``.

The rules are those of the API's parser, which cannot be used because it logs an entry that it drops, secrets included.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

_NAME: Final = r"[\x21\x23-\x27\x2a\x2b\x2d\x2e\x30-\x39\x41-\x5a\x5e-\x7a\x7c\x7e]+"
"""Printable ASCII except space and delimiters."""
_VALUE: Final = r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
"""Printable ASCII except space, quotation mark, comma, semicolon and backslash."""
_SPACED_VALUE: Final = _VALUE.replace(r"[", r"[\x20", 1)
_SPACE: Final = r"[ \t]*"
_ENCODED: Final = re.compile(f"{_SPACE}{_NAME}{_SPACE}={_SPACE}{_VALUE}{_SPACE}")
_LIBERAL: Final = re.compile(f"{_SPACE}{_NAME}{_SPACE}={_SPACE}{_SPACED_VALUE}{_SPACE}")
_GRPC_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_GRPC_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_LINE_BREAKS: Final = re.compile(r"[\r\n\x00]")


def parse(text: str) -> tuple[dict[str, str], list[int]]:
    """Return the headers with lower-case names, and the positions (from 1) of entries that are not headers.

    Values are URL-decoded, unless they contain spaces: such an entry follows the habit of other SDKs and is taken as it is.

    Example:
        >>> parse("X-Key=a%20b, broken")
        ({'x-key': 'a b'}, [2])
    """
    headers: dict[str, str] = {}
    broken: list[int] = []
    for number, entry in enumerate(text.split(","), start=1):
        pair = _pair(entry.strip())
        if pair is not None:
            headers[pair[0]] = pair[1]
        elif entry.strip():
            broken.append(number)
    return headers, broken


def _pair(entry: str) -> tuple[str, str] | None:
    name, _, value = entry.partition("=")
    if _ENCODED.fullmatch(entry):
        return unquote(name).strip().lower(), unquote(value).strip()
    return (name.strip().lower(), value.strip()) if _LIBERAL.fullmatch(entry) else None


def unsendable(headers: dict[str, str], *, grpc: bool) -> Iterator[str]:
    """Yield the names of headers that the protocol cannot transport."""
    for name, value in headers.items():
        if not (_is_metadata(name, value) if grpc else _is_http(value)):
            yield name


def _is_metadata(name: str, value: str) -> bool:
    return bool(_GRPC_NAME.fullmatch(name) and (_GRPC_VALUE.fullmatch(value) or name.endswith("-bin")))


def _is_http(value: str) -> bool:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return not _LINE_BREAKS.search(value)
