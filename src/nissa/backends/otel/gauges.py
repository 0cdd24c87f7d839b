"""Gauges that keep a point per step with the step's own time, whatever the export interval.

Points of many streams that were measured together are kept as one row, those of a stream that is recorded alone as two
columns. They become objects only when a reader collects. Rows and columns have a bound each: the many streams of
parameters never thin out the few of the step itself.
"""

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
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


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a stream that is recorded alone. NaN is a finding."""

    attributes: "Mapping[str, Any]"
    time: int
    value: float

    def points(self) -> "Iterator[tuple[Mapping[str, Any], int, float]]":
        """Yield attributes, time and value."""
        yield self.attributes, self.time, self.value

    def size(self) -> int:
        """Return 1."""
        return 1


@dataclass(slots=True)
class Points:
    """The points of one stream that is recorded alone, thinned evenly when there are too many.

    Only every ``stride``-th point is kept, and always the newest. NaN is a finding. A point takes 16 bytes.
    """

    attributes: "Mapping[str, Any]"
    times: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    newest: tuple[int, float] | None = None
    seen: int = 0
    stride: int = 1
    ended: bool = False

    def add(self, time: int, value: float) -> int:
        """Add a point; return how many more are kept now."""
        replaced = self.newest is not None
        self.newest, self.ended = None, False
        if self.seen % self.stride == 0:
            self.times.append(time)
            self.values.append(value)
        else:
            self.newest = time, value
        self.seen += 1
        return 1 - replaced

    def thin(self) -> None:
        """Keep every other point."""
        last = self.newest or (self.times[-1], self.values[-1])
        dropped = self.newest is not None or len(self.times) % 2 == 0
        self.times, self.values = self.times[::2], self.values[::2]
        self.stride *= 2
        self.newest = last if dropped else None

    def size(self) -> int:
        """Return how many points are kept."""
        return len(self.times) + (self.newest is not None)

    def points(self) -> "Iterator[tuple[Mapping[str, Any], int, float]]":
        """Yield attributes, time and value of each point, oldest first."""
        for time, value in zip(self.times, self.values, strict=True):
            yield self.attributes, time, value
        if self.newest is not None:
            yield self.attributes, *self.newest

    def weight(self) -> float:
        """Return the number of points where thinning would drop any, else 0."""
        return self.size() if len(self.times) > 1 else 0

    def all(self) -> "list[Points]":
        """Return the points as the only element of a list."""
        return [self]


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

    def weight(self) -> float:
        """Return the number of points times that of streams where thinning would drop any, else 0.

        Thinning a hundred parameters' quantiles once makes as much room as thinning a hundred norms of the whole
        network, and one of those is worth more than another row of quantiles.
        """
        return self.size() ** 2 / len(self.rows) if len(self.rows) > 1 else 0


GroupKey = tuple[MetricSpec, Any]
G = TypeVar("G", Group, Points)


@dataclass(slots=True)
class _Pool(Generic[G]):
    """Groups that share a bound."""

    most: int
    groups: dict[GroupKey, G] = field(default_factory=dict)
    points: int = 0

    def grow(self, more: int) -> bool:
        """Count points that were added; return whether others had to give way."""
        self.points += more
        thinned = False
        while self.points > self.most and self.shrink():
            self.points = sum(group.size() for group in self.groups.values())
            thinned = True
        return thinned

    def shrink(self) -> bool:
        """Thin the groups that weigh most, or drop the oldest one that has ended; return whether there was any."""
        weights = {key: weight for key, group in self.groups.items() if (weight := group.weight())}
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


class _Pending:
    """What a reader has not collected yet.

    Attributes:
        order: All groups of both pools, oldest first.
    """

    def __init__(self, most: int, most_alone: int) -> None:
        self.rows: _Pool[Group] = _Pool(most)
        self.alone: _Pool[Points] = _Pool(most_alone)
        self.order: dict[GroupKey, None] = {}

    def add(self, key: GroupKey, row: Row) -> bool:
        """Add a row, or the only point of one that is recorded alone; return whether others had to give way."""
        self.order[key] = None
        return self.rows.grow(self.rows.groups.setdefault(key, Group()).add(row))

    def add_point(self, key: GroupKey, point: "Point") -> bool:
        """Add a point of a stream that is recorded alone; return whether others had to give way."""
        points = self.alone.groups.get(key)
        if points is None:
            self.order[key] = None
            points = self.alone.groups[key] = Points(point.attributes)
        return self.alone.grow(points.add(point.time, point.value))

    def group(self, key: GroupKey) -> "Group | Points | None":
        """Return a group of either pool; None where it was dropped."""
        return self.rows.groups.get(key) or self.alone.groups.get(key)


class GaugeLog:
    """The points that each reader has not collected yet.

    Args:
        most: How many points of rows are kept per reader; beyond it groups are thinned evenly, those of many streams
            first, down to their first and their newest row.
        most_alone: How many points of streams that are recorded alone are kept per reader; beyond it the longest
            are thinned evenly, down to their first and their newest point.
    """

    def __init__(self, most: int, most_alone: int = 500_000) -> None:
        self._most = most
        self.most_alone = most_alone
        self._readers: WeakKeyDictionary[object, _Pending] = WeakKeyDictionary()
        self._last: dict[GroupKey, Row | Point] = {}

    def attach(self, reader: object) -> None:
        """Keep points for a reader from now on, beginning with the present."""
        if reader not in self._readers:
            pending = self._readers[reader] = self._empty()
            for key, last in self._last.items():
                if isinstance(last, Row):
                    pending.add(key, last)
                else:
                    pending.add_point(key, last)

    def _empty(self) -> _Pending:
        return _Pending(self._most, self.most_alone)

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
        self._last[spec, group] = row
        for pending in self._readers.values():
            pending.add((spec, group), row)

    def add_point(self, spec: MetricSpec, group: Any, attributes: "Mapping[str, Any]", time: int, value: float) -> bool:
        """Add a point of a stream that is recorded alone, for every reader; return whether others had to give way."""
        point = Point(attributes, time, float(value))
        self._last[spec, group] = point
        thinned = [pending.add_point((spec, group), point) for pending in self._readers.values()]
        return any(thinned)

    def take(self, reader: object) -> "dict[GroupKey, list[Row | Point | Points]]":
        """Return what a reader has not collected yet, and forget it."""
        self.attach(reader)
        pending, self._readers[reader] = self._readers[reader], self._empty()
        found = {key: pending.group(key) for key in pending.order}
        return {key: [*group.all()] for key, group in found.items() if group is not None}

    def newest(self) -> "dict[GroupKey, list[Row | Point | Points]]":
        """Return the newest row or point of each group, for readers that show only the present."""
        return {key: [last] for key, last in self._last.items()}

    def end(self, group: Any) -> None:
        """Forget the newest rows of a group whose streams have ended; readers still get what they have not."""
        for key in [key for key in self._last if key[1] == group]:
            del self._last[key]
            for pending in self._readers.values():
                if (ended := pending.group(key)) is not None:
                    ended.ended = True
