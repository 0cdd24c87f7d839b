"""Gauge history: one point per step with the step's own timestamp, independent of the export interval.

Streams that are measured together (the gradient norms of all parameters) are stored as one row per step. A stream that
is recorded alone (the loss) is stored as two columns, times and values. Data point objects are created only when a
reader collects. Rows and columns have separate bounds, so that the many streams of parameters never displace those of
the step.
"""

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

import numpy as np

from nissa.semconv.metrics import MetricSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GaugeRow:
    """One measurement of several streams.

    Args:
        attributes: Attributes per stream.
        time: Nanoseconds since the Unix epoch.
        values: One value per stream. In an array, NaN means "not measured" and is not exported. In a tuple, NaN is a
            measured value and is exported.
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
        """Return the number of points."""
        absent = int(np.isnan(self.values).sum()) if isinstance(self.values, np.ndarray) else 0
        return len(self.values) - absent


@dataclass(frozen=True, slots=True)
class GaugePoint:
    """One measurement of a stream that is recorded alone; NaN is a measured value and is exported."""

    attributes: "Mapping[str, Any]"
    time: int
    value: float

    def points(self) -> "Iterator[tuple[Mapping[str, Any], int, float]]":
        """Yield attributes, time and value."""
        yield self.attributes, self.time, self.value

    def columns(self) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
        """Return the time and the value as arrays."""
        return np.array([self.time], dtype=np.int64), np.array([self.value], dtype=np.float64)

    def size(self) -> int:
        """Return 1."""
        return 1


@dataclass(slots=True)
class GaugeSeries:
    """Columns (times, values) of one stream that is recorded alone, thinned evenly above the bound.

    Every ``stride``-th point is kept, and always the newest. NaN is a measured value. The columns are arrays of 8-byte
    numbers, 16 bytes per point, because objects would take several times as much.
    """

    attributes: "Mapping[str, Any]"
    times: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    newest: tuple[int, float] | None = None
    seen: int = 0
    stride: int = 1
    ended: bool = False

    def add(self, time: int, value: float) -> int:
        """Add a point; return the increase of the number of points kept."""
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

    def columns(self) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
        """Return copies of all times and values, oldest first."""
        times, values = np.array(self.times, dtype=np.int64), np.array(self.values, dtype=np.float64)
        if self.newest is None:
            return times, values
        return np.append(times, self.newest[0]), np.append(values, self.newest[1])

    def weight(self) -> float:
        """Return the number of points if thinning would drop any, else 0."""
        return self.size() if len(self.times) > 1 else 0

    def all(self) -> "list[GaugeSeries]":
        """Return the points as the only element of a list."""
        return [self]


Row = GaugeRow | GaugePoint | GaugeSeries
"""What a gauge's points come from."""


@dataclass(slots=True)
class Group:
    """Rows of the streams that are measured together, thinned evenly above the bound.

    Every ``stride``-th row is kept, and always the newest. An ended group receives no further rows.
    """

    rows: list[GaugeRow] = field(default_factory=list)
    newest: GaugeRow | None = None
    seen: int = 0
    stride: int = 1
    ended: bool = False

    def add(self, row: GaugeRow) -> int:
        """Add a row; return the increase of the number of points kept."""
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

    def all(self) -> list[GaugeRow]:
        """Return the rows kept, oldest first."""
        return [*self.rows, self.newest] if self.newest else list(self.rows)

    def weight(self) -> float:
        """Return the number of points times the number of streams if thinning would drop any, else 0.

        Groups of many streams are thus thinned first: halving the rows of 100 streams frees as many points as halving
        100 single-stream groups, and loses less information.
        """
        return self.size() ** 2 / len(self.rows) if len(self.rows) > 1 else 0


GroupKey = tuple[MetricSpec, Any]
G = TypeVar("G", Group, GaugeSeries)


@dataclass(slots=True)
class _Pool(Generic[G]):
    """Groups that share a bound of ``most`` points."""

    most: int
    groups: dict[GroupKey, G] = field(default_factory=dict)
    points: int = 0

    def grow(self, more: int) -> bool:
        """Count added points and thin groups above the bound; return whether any group was thinned."""
        self.points += more
        thinned = False
        while self.points > self.most and self.shrink():
            self.points = sum(group.size() for group in self.groups.values())
            thinned = True
        return thinned

    def shrink(self) -> bool:
        """Thin the heaviest groups, else drop the oldest ended one; return False if neither was possible."""
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
    """Points that one reader has not collected yet.

    Attributes:
        rows: Pool of streams that are measured together.
        alone: Pool of streams that are recorded alone.
        order: Keys of the groups of both pools, oldest first, so that metrics are exported in the order of recording.
    """

    def __init__(self, most: int, most_alone: int) -> None:
        self.rows: _Pool[Group] = _Pool(most)
        self.alone: _Pool[GaugeSeries] = _Pool(most_alone)
        self.order: dict[GroupKey, None] = {}

    def add(self, key: GroupKey, row: GaugeRow) -> bool:
        """Add a row; return whether any group was thinned."""
        self.order[key] = None
        return self.rows.grow(self.rows.groups.setdefault(key, Group()).add(row))

    def add_point(self, key: GroupKey, point: "GaugePoint") -> bool:
        """Add a point of a stream that is recorded alone; return whether any stream was thinned."""
        points = self.alone.groups.get(key)
        if points is None:
            self.order[key] = None
            points = self.alone.groups[key] = GaugeSeries(point.attributes)
        return self.alone.grow(points.add(point.time, point.value))

    def group(self, key: GroupKey) -> "Group | GaugeSeries | None":
        """Return a group of either pool; None if it was dropped."""
        return self.rows.groups.get(key) or self.alone.groups.get(key)


class GaugeLog:
    """Gauge points that each reader has not collected yet.

    Args:
        most: Maximum number of points in rows per reader. Above it groups are thinned evenly, those of many streams
            first, down to their first and their newest row.
        most_alone: Maximum number of points of streams recorded alone per reader. Above it the longest streams are
            thinned evenly, down to their first and their newest point.
    """

    def __init__(self, most: int, most_alone: int = 500_000) -> None:
        self._most = most
        self.most_alone = most_alone
        # By the id of the reader. Weak references: the buffer of a discarded reader is freed with it.
        self._readers: dict[int, tuple[ref[object], _Pending]] = {}
        # Newest row or point per group: for instruments, and the first point of a reader that attaches later.
        self._last: dict[GroupKey, GaugeRow | GaugePoint] = {}

    def attach(self, reader: object) -> None:
        """Buffer points for a reader from now on, starting with the newest point of each group."""
        if id(reader) not in self._readers:
            pending = self._clear(reader)
            for key, last in self._last.items():
                if isinstance(last, GaugeRow):
                    pending.add(key, last)
                else:
                    pending.add_point(key, last)

    def _clear(self, reader: object) -> _Pending:
        """Return a new buffer for a reader."""
        readers, number, pending = self._readers, id(reader), _Pending(self._most, self.most_alone)
        readers[number] = ref(reader, lambda _: readers.pop(number, None)), pending
        return pending

    def _buffers(self) -> "list[_Pending]":
        # A copy, because a reader may be discarded at any time.
        return [pending for _, pending in [*self._readers.values()]]

    def add(
        self,
        spec: MetricSpec,
        group: Any,
        attributes: "Sequence[Mapping[str, Any]]",
        time: int,
        values: "tuple[float, ...] | NDArray[np.float64]",
    ) -> None:
        """Add a row to the buffer of every reader."""
        row = GaugeRow(attributes, time, values)
        key = spec, group
        self._last[key] = row
        for pending in self._buffers():
            pending.add(key, row)

    def add_point(self, spec: MetricSpec, group: Any, attributes: "Mapping[str, Any]", time: int, value: float) -> bool:
        """Add a point of a stream recorded alone to every reader's buffer; return whether any stream was thinned."""
        point = GaugePoint(attributes, time, float(value))
        key = spec, group
        self._last[key] = point
        thinned = [pending.add_point(key, point) for pending in self._buffers()]
        return any(thinned)

    def take(self, reader: object) -> "dict[GroupKey, list[Row]]":
        """Return the points that a reader has not collected yet, and clear its buffer."""
        self.attach(reader)
        _, pending = self._readers[id(reader)]
        self._clear(reader)
        found = {key: pending.group(key) for key in pending.order}
        return {key: [*group.all()] for key, group in found.items() if group is not None}

    def newest(self) -> "dict[GroupKey, list[Row]]":
        """Return the newest row or point of each group, for instruments."""
        return {key: [last] for key, last in self._last.items()}

    def end(self, group: Any) -> None:
        """Drop the newest rows of an ended group; points in the buffers of readers are still exported."""
        for key in [key for key in self._last if key[1] == group]:
            del self._last[key]
            for pending in self._buffers():
                if (ended := pending.group(key)) is not None:
                    ended.ended = True
