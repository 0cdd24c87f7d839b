"""Horizontal axis that all figures share: time, or the optimizer step at that time."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nissa.charts.plotly import go
from nissa.charts.series import Times, Values
from nissa.charts.theme import LIGHT, template

TIME: Final[dict[str, Any]] = {"type": "date", "title": {"text": "time (UTC)"}, "hoverformat": "%H:%M:%S.%L"}
"""X axis with time."""

STEP: Final[dict[str, Any]] = {"type": "linear", "title": {"text": "optimizer step"}, "hoverformat": ",.0f"}
"""X axis with optimizer steps."""


def milliseconds(times: Times | Values) -> Values:
    """Convert nanoseconds to milliseconds, the unit of plotly's date axis."""
    return np.round(times / 1e6)


def small(values: NDArray[Any]) -> NDArray[np.float32]:
    """Convert numbers to float32, to halve the page's data; values that are not finite become NaN, drawn as a gap."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return np.where(np.isfinite(single), single, np.float32(np.nan))


def listed(values: Values) -> list[float | None]:
    """Convert numbers to JSON values; values that are not finite become None."""
    return [None if not np.isfinite(each) else int(each) if each == int(each) else float(each) for each in values]


def meta(label: str, group: str, step: Mapping[str, Sequence[float | None]] | None = None) -> dict[str, Any]:
    """Return the metadata of a trace for the page's script.

    Args:
        label: Display name.
        group: Environment filter that shows or hides the trace.
        step: Trace attributes, such as ``x``, that replace those of the trace when the x axis is the step.
    """
    return {"label": label, "group": group, "step": dict(step or {})}


def room(labels: Sequence[str]) -> int:
    """Estimate the width of the longest label, pixels; measuring it in the browser would draw every figure twice."""
    return 20 + int(7.2 * max((len(label) for label in labels), default=0))


def figure(traces: Sequence[Any], *, height: int, **layout: Any) -> go.Figure:
    """Return a figure whose x axis is time."""
    look = template(LIGHT)
    return go.Figure(data=list(traces), layout={"template": look, "height": height, "xaxis": TIME, **layout})
