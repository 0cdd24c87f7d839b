"""Words in figures: plotly reads a little HTML in them, which names must not become."""

import math
from typing import Final

ABSENT: Final = "—"
"""What stands where nothing was measured."""


def plain(text: object) -> str:
    """Return text that plotly shows as it is."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, most: int) -> str:
    """Return text with its middle left out where it is too long: names differ at their ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def number(value: float | None) -> str:
    """Return a number in four digits; a dash where there is none."""
    if value is None:
        return ABSENT
    return f"{value:.4g}" if math.isfinite(value) else {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
