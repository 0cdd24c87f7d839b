"""Grid of series: one row per series, one column per time interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nissa.charts.series import Series, Times, Values

_LATEST: Final = 2**63 - 1  # nanoseconds, the limit of int64


@dataclass(frozen=True, slots=True)
class Grid:
    """Values of R series (rows) in C time intervals (columns).

    Args:
        rows: R series names.
        edges: Shape (C + 1,), nanoseconds since the Unix epoch; column ``c`` covers ``edges[c]`` to ``edges[c + 1]``.
        steps: Shape (C + 1,), optimizer steps at the edges; None if they are unknown.
        cells: Shape (R, C); NaN if nothing was measured.
    """

    rows: tuple[str, ...]
    edges: Times
    steps: Values | None
    cells: Values


def gather(rows: Sequence[Series], *, most_columns: int) -> Grid:
    """Convert series to a grid; a cell contains the largest of its values, so that spikes stay visible.

    There is one column per time of measurement. Beyond ``most_columns``, neighbouring times share a column.
    """
    instants = np.unique(np.concatenate([row.times for row in rows]))
    columns = min(len(instants), most_columns)
    first = (np.arange(columns) * len(instants) + columns - 1) // columns
    cells = np.full((len(rows), columns), np.nan)
    for index, row in enumerate(rows):
        at = np.searchsorted(instants, row.times) * columns // len(instants)
        np.fmax.at(cells[index], at, row.values)
    last = min(int(instants[-1]) + _width(instants), _LATEST)
    edges = np.append(instants[first], np.int64(last))
    return Grid(tuple(row.name for row in rows), edges, _steps(rows, edges), cells)


def _width(instants: Times) -> int:
    """Return the width of the last column: the median interval between measurements, nanoseconds."""
    return int(np.median(np.diff(instants))) if len(instants) > 1 else 1_000_000_000


def _steps(rows: Sequence[Series], edges: Times) -> Values | None:
    known = [(row.times, row.steps) for row in rows if row.steps is not None]
    times = np.concatenate([each for each, _ in known]) if known else np.empty(0, dtype=np.int64)
    steps = np.concatenate([each for _, each in known]) if known else np.empty(0)
    finite = np.isfinite(steps)
    if not finite.any():
        return None
    order = np.argsort(times[finite], kind="stable")
    times, steps = times[finite][order], steps[finite][order]
    found: Values = np.interp(edges.astype(np.float64), times.astype(np.float64), steps)
    found[-1] = steps[-1] + max(1.0, float(np.median(np.diff(np.unique(steps)))) if len(np.unique(steps)) > 1 else 1.0)
    return found
