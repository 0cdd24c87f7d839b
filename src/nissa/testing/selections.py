"""Sequences of what was recorded, with assertions that say what was found instead."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, overload

from nissa.testing.records import LogRecord, Point, Span

if TYPE_CHECKING:
    from nissa.diagnostics.finding import Finding
    from nissa.events import TelemetryEvent

T = TypeVar("T")

_MOST_LISTED = 12
_ABSENT = object()


class Selection(Sequence[T], Generic[T]):
    """Recorded items, in the order in which they were recorded, and the conditions that selected them.

    A selection is a sequence: ``len(spans)``, ``spans[0]`` and loops work. It is equal to a list with the same items.

    Args:
        items: The items.
        conditions: Conditions that they meet, for messages.
        before: For messages, if there are no items: the condition that none met, the items before it, and the name in
            the condition.
    """

    kind: ClassVar[str] = "item"

    def __init__(
        self, items: Iterable[T], conditions: Sequence[str] = (), before: "tuple[str, Sequence[T], str]" = ("", (), "")
    ) -> None:
        self._items = tuple(items)
        self._conditions = tuple(conditions)
        self._before = before

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> "Sequence[T]": ...

    def __getitem__(self, index: int | slice) -> "T | Sequence[T]":
        """Return an item, or several of them."""
        return self._items[index]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same items."""
        return isinstance(other, Sequence) and self._items == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        """Return the conditions, and a line for each item."""
        return f"<{self._counted(len(self))}{self._listed(self._items)}>"

    def named(self, name: str) -> Self:
        """Return the items with a name."""
        return self._select(lambda item: self._name(item) == name, f"named {name!r}", name)

    @property
    def names(self) -> dict[str, int]:
        """Number of items by name, in the order in which the names were recorded."""
        return dict(Counter(self._name(item) for item in self))

    def where(self, condition: Callable[[T], object], description: str = "") -> Self:
        """Return the items for which a function returns a true value.

        Args:
            condition: The function.
            description: Text for messages, such as ``"after epoch 3"``.
        """
        return self._select(condition, description or f"where {getattr(condition, '__name__', condition)}")

    def with_attributes(self, attributes: Mapping[str, object] = {}, /, **more: object) -> Self:
        """Return the items that have all given attributes; others do not matter.

        Args:
            attributes: Values by name. A value may be anything that compares, such as ``pytest.approx(0.1)``.
            **more: Further attributes, whose names are Python names.
        """
        wanted = {**attributes, **more}
        described = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
        return self._select(
            lambda item: all(self._attributes(item).get(name, _ABSENT) == value for name, value in wanted.items()),
            f"with {described}",
        )

    def one(self) -> T:
        """Return the only item.

        Raises:
            AssertionError: There is none, or more than one; the message lists what there is.
        """
        if len(self) != 1:
            raise AssertionError(f"Expected one {self.kind}{self._conditions_text}, found {self._found()}")
        return self._items[0]

    def none(self) -> None:
        """Assert that there is no item.

        Raises:
            AssertionError: There is at least one.
        """
        if self._items:
            raise AssertionError(f"Expected no {self.kind}{self._conditions_text}, found {self._found()}")

    def count(self, number: int) -> Self:  # type: ignore[override]  # of items, as a condition
        """Assert the number of items, and return them.

        Raises:
            AssertionError: There are more or fewer.
        """
        if len(self) != number:
            raise AssertionError(f"Expected {self._counted(number)}, found {self._found()}")
        return self

    def _select(self, condition: Callable[[T], object], description: str, name: str = "") -> Self:
        found = [item for item in self._items if condition(item)]
        before = (description, self._items, name) if self._items else self._before
        return type(self)(found, (*self._conditions, description), before)

    @property
    def _conditions_text(self) -> str:
        return "".join(f" {condition}" for condition in self._conditions)

    def _counted(self, number: int) -> str:
        return f"{number} {self.kind}{'' if number == 1 else 's'}{self._conditions_text}"

    def _found(self) -> str:
        if self._items:
            return f"{len(self)}:{self._listed(self._items)}"
        condition, items, name = self._before
        if not items:
            return f"none; no {self.kind} was recorded."
        if not name:
            return f"none. There are {len(items)} that are not {condition}:{self._listed(items)}"
        names = Counter(self._name(item) for item in items)
        close = difflib.get_close_matches(name, names, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(each if number == 1 else f"{each} ({number})" for each, number in names.items())
        return f"none.{meant} Recorded names: {listed}."

    def _listed(self, items: Sequence[T]) -> str:
        lines = [f"\n  {self._line(item)}" for item in items[:_MOST_LISTED]]
        more = len(items) - _MOST_LISTED
        return "".join(lines) + (f"\n  ... and {more} more" if more > 0 else "")

    @classmethod
    def _name(cls, item: T) -> str:
        return str(getattr(item, "name", ""))

    @classmethod
    def _attributes(cls, item: T) -> Mapping[str, object]:
        found: Mapping[str, object] = getattr(item, "attributes", {})
        return found

    @classmethod
    def _line(cls, item: T) -> str:
        return repr(item)


class Spans(Selection[Span]):
    """Recorded spans.

    A span that lasts is announced by one named ``<name>.started`` when it begins; ``named`` does not mix the two.
    """

    kind = "span"

    def children_of(self, parent: Span) -> Self:
        """Return the spans whose parent is a given span."""
        return self._select(lambda span: span.parent_id == parent.span_id, f"below {parent.name!r}")

    def in_trace(self, trace_id: str) -> Self:
        """Return the spans of a trace."""
        return self._select(lambda span: span.trace_id == trace_id, f"in trace {trace_id}")

    @classmethod
    def _line(cls, item: Span) -> str:
        return f"{item.name} ({item.duration:.3g} s) {_pairs(item.attributes)}{' ERROR' if item.error else ''}".rstrip()


class Records(Selection[LogRecord]):
    """Recorded log records; those with a name are OpenTelemetry Events."""

    kind = "log record"

    @classmethod
    def _line(cls, item: LogRecord) -> str:
        return f"{item.name or '(no name)'} {item.body!r} {_pairs(item.attributes)}".rstrip()


class Events(Selection["TelemetryEvent"]):
    """Events of Nissa: the life of seeds, epochs, findings. ``with_attributes`` compares their ``data``."""

    kind = "event"

    def of(self, event_type: str) -> Self:
        """Return the events of a type: an `EventType`, or its name, such as ``"SEED_GERMINATED"``."""
        return self.named(str(event_type))

    @property
    def types(self) -> dict[str, int]:
        """Number of events by type, in the order in which the types were emitted."""
        return self.names

    @classmethod
    def _name(cls, item: "TelemetryEvent") -> str:
        return str(item.event_type)

    @classmethod
    def _attributes(cls, item: "TelemetryEvent") -> Mapping[str, object]:
        return item.data

    @classmethod
    def _line(cls, item: "TelemetryEvent") -> str:
        about = {"seed": item.seed_id, "epoch": item.epoch, **item.data}
        return f"{item.event_type} {_pairs({key: value for key, value in about.items() if value is not None})}".rstrip()


class Findings(Selection["Finding"]):
    """Findings of the rules and contracts: when a trouble begins (``raised``) and when it ends.

    ``with_attributes`` compares the fields of a finding, such as ``layers`` or ``step``.
    """

    kind = "finding"

    @property
    def raised(self) -> Self:
        """Findings of troubles that began."""
        return self._select(lambda finding: finding.raised, "that were raised")

    @property
    def cleared(self) -> Self:
        """Findings of troubles that ended."""
        return self._select(lambda finding: not finding.raised, "that were cleared")

    @classmethod
    def _attributes(cls, item: "Finding") -> Mapping[str, object]:
        return {name: getattr(item, name) for name in item.__dataclass_fields__}

    @classmethod
    def _line(cls, item: "Finding") -> str:
        return f"{item.name} {'raised' if item.raised else 'cleared'} at step {item.step}: {item.sentence}"


class Metrics(Selection[Point]):
    """Recorded data points of all metrics."""

    kind = "point"

    def values(self, metric: str, attributes: Mapping[str, object] = {}) -> list[Any]:
        """Return the values of a gauge or counter, in chronological order.

        Args:
            metric: Name of the metric, such as ``"nissa.loss"``.
            attributes: Attributes of the stream, such as ``{"nissa.phase": "train"}``; needed if there is more than one.

        Raises:
            AssertionError: There is no such metric, it has several streams with these attributes, or it is a histogram.
        """
        points = self.stream(metric, attributes)
        if points[0].kind not in {"gauge", "sum"}:
            raise AssertionError(f"{metric} is a histogram; read .count and .sum of the points that stream() returns.")
        return [point.value for point in points]

    def last(self, metric: str, attributes: Mapping[str, object] = {}) -> Any:
        """Return the last value of a gauge or counter; see `values`."""
        return self.values(metric, attributes)[-1]

    def stream(self, metric: str, attributes: Mapping[str, object] = {}) -> Self:
        """Return the points of one stream of a metric, in chronological order; see `values`.

        Raises:
            AssertionError: There is no such metric, or it has several streams with these attributes.
        """
        found = self.named(metric)
        if attributes:
            found = found.with_attributes(attributes)
        streams = {repr(sorted(point.attributes.items())): point.attributes for point in found}
        if len(streams) == 1:
            return type(self)(sorted(found, key=lambda point: point.time), found._conditions)  # noqa: SLF001
        if not streams:
            raise AssertionError(f"Expected a stream{found._conditions_text}, found {found._found()}")  # noqa: SLF001
        listed = "".join(f"\n  {_pairs(each)}" for each in streams.values())
        raise AssertionError(f"Expected one stream{found._conditions_text}, found {len(streams)}:{listed}")  # noqa: SLF001

    @classmethod
    def _name(cls, item: Point) -> str:
        return item.metric

    @classmethod
    def _line(cls, item: Point) -> str:
        value = f"{item.count} values" if item.kind not in {"gauge", "sum"} else item.value
        return f"{item.metric} = {value} {_pairs(item.attributes)}".rstrip()


def _pairs(attributes: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in attributes.items())
