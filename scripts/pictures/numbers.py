"""Format numbers as a panel does: unit, colour of the threshold, name of the series."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nissa.charts.text import ABSENT
from nissa.charts.theme import LIGHT

COLOURS: Final = {"green": LIGHT.good, "orange": LIGHT.warning, "yellow": LIGHT.warning, "red": LIGHT.bad}
"""Colours by their names in boards."""

_PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_MINUTE: Final = 60.0


def shown(value: float, unit: str) -> str:
    """Return a number in a unit of Grafana's."""
    if not math.isfinite(value):
        return ABSENT
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return _seconds(value)
    if unit == "sci":
        return f"{value:.2e}"
    return _short(value) + {"cps": "/s", "bytes": "B"}.get(unit, "")


def _seconds(value: float) -> str:
    if abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if abs(value) < _MINUTE else f"{value / _MINUTE:.3g} min"


def _short(value: float) -> str:
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.4g}"


def colour(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """Return the colour of the highest threshold that a value reaches."""
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS.get(reached[-1] if reached else "", LIGHT.accent)


def name(labels: Mapping[str, str], form: str) -> str:
    """Return the name of a series: the legend with its labels filled in, or all labels."""
    if form == "__auto":
        return ", ".join(value for key, value in labels.items() if key != "__name__") or labels.get("__name__", "")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form).strip()
