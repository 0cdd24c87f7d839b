"""The axis that all figures share: time, or the step at that time."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nissa.charts.plotly import go
from nissa.charts.series import Times, Values
from nissa.charts.theme import LIGHT, template

TIME: Final[dict[str, Any]] = {"type": "date", "title": {"text": "time (UTC)"}, "hoverformat": "%H:%M:%S.%L"}
"""Time as the x axis."""

STEP: Final[dict[str, Any]] = {"type": "linear", "title": {"text": "optimizer step"}, "hoverformat": ",.0f"}
"""Steps as the x axis."""


def milliseconds(times: Times) -> Values:
    """Return times as a date axis wants them."""
    return np.round(times / 1e6)


def small(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers in the precision that a figure needs; what is not finite is left blank."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return np.where(np.isfinite(single), single, np.float32(np.nan))


def listed(values: Values) -> list[float | None]:
    """Return numbers as JSON knows them; None where there is none."""
    return [None if not np.isfinite(each) else int(each) if each == int(each) else float(each) for each in values]


def meta(label: str, group: str, step: Mapping[str, Sequence[float | None]] | None = None) -> dict[str, Any]:
    """Return what a page needs to know of a trace besides what it draws.

    Args:
        label: Its name, as people read it.
        group: What it is chosen or hidden with.
        step: What to draw in place of the trace's own values of the same name where x is the step.
    """
    return {"label": label, "group": group, "step": dict(step or {})}


def room(labels: Sequence[str]) -> int:
    """Return the pixels that the longest label needs; measuring them in the browser would draw everything twice."""
    return 20 + int(7.2 * max((len(label) for label in labels), default=0))


def figure(traces: Sequence[Any], *, height: int, **layout: Any) -> go.Figure:
    """Return a figure over time."""
    look = template(LIGHT)
    return go.Figure(data=list(traces), layout={"template": look, "height": height, "xaxis": TIME, **layout})
