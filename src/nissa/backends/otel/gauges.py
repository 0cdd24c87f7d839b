"""Gauges that keep a point per step with the step's own time, whatever the export interval.

Points of many streams that were measured together are kept as one row and become objects only when a reader collects.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from nissa.semconv.metrics import MetricSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of several streams.

    Args:
        values: One per entry of ``attributes``; NaN in an array is absent, in a tuple it is a finding.
    """

    attributes: "Sequence[Mapping[str, Any]]"
    time: int
    values: "tuple[float, ...] | NDArray[np.float64]"

    def points(self) -> "Iterator[tuple[Mapping[str, Any], int, float]]":
        """Yield attributes, time and value of each point."""
        statistics = isinstance(self.values, np.ndarray)
        values = self.values.tolist() if isinstance(self.values, np.ndarray) else self.values
        for attributes, value in zip(self.attributes, values, strict=True):
            if not (statistics and math.isnan(value)):
                yield attributes, self.time, float(value)

    def size(self) -> int:
        """Return how many points there are."""
        absent = int(np.isnan(self.values).sum()) if isinstance(self.values, np.ndarray) else 0
        return len(self.values) - absent


@dataclass(slots=True)
class Group:
    """The rows of streams that are measured together, thinned evenly when there are too many.

    Only every ``stride``-th row is kept, and always the newest. A group that has ended gets no more rows.
    """

    rows: list[Row] = field(default_factory=list)
    newest: Row | None = None
    seen: int = 0
    stride: int = 1
    ended: bool = False

    def add(self, row: Row) -> int:
        """Add a row; return how many points more are kept now."""
        replaced = len(self.newest.values) if self.newest else 0
        self.newest, self.ended = None, False
        if self.seen % self.stride == 0:
            self.rows.append(row)
        else:
            self.newest = row
        self.seen += 1
        return len(row.values) - replaced

    def thin(self) -> None:
        """Keep every other row."""
        last = self.newest or (self.rows[-1] if self.rows else None)
        self.rows = self.rows[::2]
        self.stride *= 2
        self.newest = None if last is None or (self.rows and self.rows[-1] is last) else last

    def size(self) -> int:
        """Return how many points are kept."""
        return sum(len(row.values) for row in self.all())

    def all(self) -> list[Row]:
        """Return the rows kept, oldest first."""
        return [*self.rows, self.newest] if self.newest else list(self.rows)


GroupKey = tuple[MetricSpec, Any]


@dataclass(slots=True)
class _Pending:
    groups: dict[GroupKey, Group] = field(default_factory=dict)
    points: int = 0

    def shrink(self) -> bool:
        """Thin the groups that weigh most, or drop the oldest one that has ended; whether there was any.

        A group weighs its points times its streams: thinning a hundred parameters' quantiles once makes as much room
        as thinning a hundred losses, and the loss of each step is worth more than another row of those.
        """
        weights = {
            key: group.size() ** 2 / len(group.rows) for key, group in self.groups.items() if len(group.rows) > 1
        }
        heaviest = max(weights.values(), default=0)
        for key, weight in weights.items():
            if 2 * weight > heaviest:
                self.groups[key].thin()
        if weights:
            return True
        ended = next((key for key, group in self.groups.items() if group.ended), None)
        if ended is not None:
            del self.groups[ended]
        return ended is not None


class GaugeLog:
    """The points that each reader has not collected yet.

    Args:
        most: How many points are kept per reader; beyond it groups are thinned evenly, those of many streams
            first, down to their first and their newest row.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._readers: WeakKeyDictionary[object, _Pending] = WeakKeyDictionary()
        self._last: dict[GroupKey, Row] = {}

    def attach(self, reader: object) -> None:
        """Keep points for a reader from now on, beginning with the present."""
        if reader not in self._readers:
            pending = self._readers[reader] = _Pending()
            for key, row in self._last.items():
                self._add(pending, key, row)

    def add(
        self,
        spec: MetricSpec,
        group: Any,
        attributes: "Sequence[Mapping[str, Any]]",
        time: int,
        values: "tuple[float, ...] | NDArray[np.float64]",
    ) -> None:
        """Add a row for every reader."""
        row = Row(attributes, time, values)
        key = (spec, group)
        self._last[key] = row
        for pending in self._readers.values():
            self._add(pending, key, row)

    def _add(self, pending: _Pending, key: GroupKey, row: Row) -> None:
        pending.points += pending.groups.setdefault(key, Group()).add(row)
        while pending.points > self._most and pending.shrink():
            pending.points = sum(group.size() for group in pending.groups.values())

    def take(self, reader: object) -> dict[GroupKey, list[Row]]:
        """Return what a reader has not collected yet, and forget it."""
        self.attach(reader)
        pending, self._readers[reader] = self._readers[reader], _Pending()
        return {key: group.all() for key, group in pending.groups.items()}

    def newest(self) -> dict[GroupKey, list[Row]]:
        """Return the newest row of each group, for readers that show only the present."""
        return {key: [row] for key, row in self._last.items()}

    def end(self, group: Any) -> None:
        """Forget the newest rows of a group whose streams have ended; readers still get what they have not."""
        for key in [key for key in self._last if key[1] == group]:
            del self._last[key]
            for pending in self._readers.values():
                if key in pending.groups:
                    pending.groups[key].ended = True
