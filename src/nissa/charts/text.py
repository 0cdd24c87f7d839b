"""Text formatting for figures; plotly interprets some HTML tags in text, so names must be escaped."""

import math
from typing import Final

ABSENT: Final = "—"
"""Placeholder for a value that was not measured."""


def plain(text: object) -> str:
    """Escape text so that plotly displays it literally."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, most: int) -> str:
    """Shorten text to ``most`` characters by cutting its middle, since names differ at their ends.

    Example: ``shorten("encoder.layer.weight", 10)`` gives ``enc…weight``.
    """
    if len(text) <= most:
        return text
    head = (most - 1) // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def number(value: float | None) -> str:
    """Format a number with four significant digits; None becomes a dash."""
    if value is None:
        return ABSENT
    return f"{value:.4g}" if math.isfinite(value) else {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
