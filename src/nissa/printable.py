r"""Text that is safe to print, log and export: control characters, line breaks and lone surrogates are escaped.

Names, reasons and messages come from training scripts, policies, language models and files. A terminal would execute the
escape sequences in them, a line break would forge a line of a log, and no exporter can encode a lone surrogate. So text
is escaped once, where it enters: in the hub, in the calls of a run, and in the reader of recordings.

Example: an escape character becomes the four characters ``\x1b``, and a line break becomes ``\n``.
"""

import re
from hashlib import blake2b
from reprlib import repr as short_repr
from typing import Final

MOST_NAME: Final = 256
"""Maximum length of an identifier or name, characters."""

MOST_TEXT: Final = 8_192
"""Maximum length of any other text, characters."""

CUT: Final = "…"
"""Mark at the end of text that was cut."""

# Control characters, line and paragraph separators, marks that reverse the direction of writing, and surrogates.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DIGEST_BYTES: Final = 4


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Return text with unsafe characters escaped, cut to ``most`` characters.

    Safe text is returned unchanged, so a second call changes nothing.
    """
    if len(text) <= most and text.isprintable():  # one pass in C, for nearly all text
        return text
    escaped = _escaped(text[: most + 1])
    return escaped if len(escaped) <= most else escaped[: max(0, most - len(CUT))] + CUT


def printable_name(text: str, most: int = MOST_NAME) -> str:
    """Return an identifier with unsafe characters escaped, at most ``most`` characters long.

    A longer one ends in a digest of its characters, so that different identifiers stay different.
    """
    if len(text) <= most and text.isprintable():
        return text
    escaped = _escaped(text[: most + 1])
    if len(escaped) <= most:
        return escaped
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{escaped[: most - len(digest) - len(CUT)]}{CUT}{digest}"


def printable_lines(text: str) -> str:
    """Return text of several lines with the unsafe characters of each line escaped."""
    return "\n".join(map(_escaped, text.split("\n")))


def shown(value: object) -> str:
    """Return the representation of a value for an error message, shortened where it is long."""
    try:
        return short_repr(value)
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, or whatever the value's own code raises
        return printable_name(f"<{type(value).__name__}>")


def decoded(data: bytes | bytearray | memoryview, most: int = MOST_TEXT) -> str:
    """Return bytes as text; those that are not UTF-8 are escaped."""
    # Four bytes per character at most; a character that the cut divides is beyond the limit anyway.
    return bytes(data[: 4 * (most + 1)]).decode("utf-8", "backslashreplace")


def _escaped(text: str) -> str:
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
