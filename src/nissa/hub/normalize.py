"""Normalization of emitted objects to `TelemetryEvent`, or rejection with a reason.

The input is a `TelemetryEvent`, or any object or mapping with its attributes. The seed slots of other packages, for
example, pass such events to ``on_telemetry``. Their vocabulary differs between versions; this module is the only place
that maps it. `nissa.hub.plain_data` converts and bounds the values, and `nissa.printable` escapes the text.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from numbers import Integral, Real
from operator import attrgetter
from time import time_ns
from typing import Any, Final

from nissa.errors import UnknownNameError
from nissa.events import EventType, Severity, Stage, TelemetryEvent, as_mapping, nanoseconds
from nissa.hub.plain_data import DEFAULT_LIMITS, PayloadLimits, PlainData, is_plain, to_name, to_plain_data, to_text
from nissa.printable import MOST_NAME, MOST_TEXT, printable, printable_name
from nissa.random_ids import new_event_id

_TYPE_ALIASES: Final = {"SEED_PRUNED": EventType.SEED_CULLED}
_KEY_ALIASES: Final = {
    "from_stage": "from",
    "to_stage": "to",
    "params": "parameters",
    "params_added": "parameters",
    "blueprint": "blueprint_id",
}
_PERCENT_KEYS: Final = frozenset(
    {"improvement", "accuracy", "accuracy_delta", "val_accuracy", "train_accuracy", "blending_delta", "counterfactual"}
)
_STAGE_KEYS: Final = frozenset({"from", "to"})
_NAME_KEYS: Final = frozenset({"blueprint_id", "flag", "gate"})
_TEXT_KEYS: Final = frozenset({"error", "narrative", "path", "reason"})
_LIST_KEYS: Final = frozenset({"checks_failed", "checks_passed"})
_FIELDS: Final = (*TelemetryEvent.__dataclass_fields__, "timestamp")
_OWN_FIELDS: Final = tuple(TelemetryEvent.__dataclass_fields__)
_own_values = attrgetter(*_OWN_FIELDS)
_TYPED_KEYS: Final = _NAME_KEYS | _TEXT_KEYS | _LIST_KEYS
_CONVERTED_KEYS: Final = frozenset({*_TYPED_KEYS, *_KEY_ALIASES, *_STAGE_KEYS, "seed_id", "slot_id", "env_id", "epoch"})
"""Keys of data whose values are converted for some type of event."""
_OTHER_SPELLINGS: Final = frozenset({*_TYPE_ALIASES, *EventType.__members__})
"""Names of known types; text that equals one in capitals becomes it."""
_NO_ENVIRONMENT: Final = -1
_LATEST: Final = 2**63  # nanoseconds; OTLP carries no later time
_MOST_INTEGER: Final = 2**63  # limit of OTLP integers


class Rejected(ValueError):  # noqa: N818 - it is an outcome, counted by its reason, and never leaves the hub
    """An invalid event; ``reason`` is one of a few short names, so that rejections can be counted by it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(printable(f"{reason}: {detail}"))
        self.reason = reason


def normalize(
    item: object,
    *,
    percent: bool = False,
    env_id: str | int | None = None,
    limits: PayloadLimits = DEFAULT_LIMITS,
) -> TelemetryEvent:
    """Return ``item`` as a `TelemetryEvent` that shares no mutable state with it.

    Args:
        item: A `TelemetryEvent`, or an object or mapping with its attributes.
        percent: Whether accuracies and improvements in its data are in percent; they are converted to fractions.
        env_id: Environment of an event that does not name one.
        limits: Maximum size of its data; what is beyond is left out, and the event is marked as truncated.

    Raises:
        Rejected: The item is not a valid event.
    """
    try:
        if type(item) is TelemetryEvent and not percent and env_id is None:
            unchanged = _unchanged(item, limits)
            if unchanged is not None:
                return unchanged
        return _normalized(item, percent=percent, env_id=env_id, limits=limits)
    except Rejected:
        raise
    except Exception as error:  # a value of the producer can raise anything, wherever it is compared or converted
        raise Rejected("unreadable", f"reading a {type(item).__name__} raised {type(error).__name__}") from error


def own_event(event: TelemetryEvent, limits: PayloadLimits) -> TelemetryEvent:
    """Return an event that a call on a run or seed has created, with bounded plain data and escaped text."""
    if (
        (event.slot_id is None or _is_name(event.slot_id))
        and _is_text(event.message)
        and is_plain(event.data, limits)
        and _is_typed(event.data)
    ):
        return event
    plain = PlainData(limits)
    return event.changed(
        data=_typed(plain.mapping(event.data.items())),
        slot_id=to_name(event.slot_id),
        message=to_text(event.message),
        truncated=plain.truncated,
    )


def _unchanged(event: TelemetryEvent, limits: PayloadLimits) -> TelemetryEvent | None:
    """Return a copy of an event that needs no conversion; None if it needs one.

    Most events of ours need none, and the conversion takes three times as long as these checks.
    """
    kind, seed_id, slot_id, env_id = event.event_type, event.seed_id, event.slot_id, event.env_id
    epoch, data, message, at, event_id = event.epoch, event.data, event.message, event.time_unix_nano, event.event_id
    if not (
        (type(kind) is EventType or _is_other_type(kind))
        and (seed_id is None or _is_name(seed_id))
        and (slot_id is None or _is_name(slot_id))
        and (env_id is None or _is_name(env_id))
        and (epoch is None or (type(epoch) is int and -_MOST_INTEGER <= epoch < _MOST_INTEGER))
        and type(message) is str
        and (not message or _is_text(message))
        and type(event.severity) is Severity
        and type(at) is int
        and 0 <= at < _LATEST
        and event_id
        and _is_name(event_id)
        and type(data) is dict
        and _CONVERTED_KEYS.isdisjoint(data)
        and is_plain(data, limits)
    ):
        return None
    copy = TelemetryEvent(kind, seed_id, slot_id, epoch, dict(data), message, event.severity, env_id, at, event_id)
    if type(kind) is EventType:
        _check(copy)
    return copy


def _is_other_type(value: object) -> bool:
    """Whether a value is a type of event that is not ours, as the hub passes it on."""
    return type(value) is str and value != "" and _is_name(value) and value.upper() not in _OTHER_SPELLINGS


def _is_name(value: object) -> bool:
    """Whether a value is a name as the hub passes it on."""
    return type(value) is str and len(value) <= MOST_NAME and value.isprintable()


def _is_text(value: object) -> bool:
    """Whether a value is a sentence as the hub passes it on."""
    return type(value) is str and len(value) <= MOST_TEXT and value.isprintable()


def _normalized(item: object, *, percent: bool, env_id: str | int | None, limits: PayloadLimits) -> TelemetryEvent:
    attributes = _attributes(item)
    event_type = _event_type(attributes.get("event_type"), item)
    plain = PlainData(limits)
    data = _data(event_type, attributes.get("data"), plain, percent=percent)
    known = _known(event_type)
    inner_env = data.pop("env_id", None) if known else data.get("env_id")
    event = TelemetryEvent(
        event_type=event_type,
        seed_id=to_name(_first(attributes.get("seed_id"), data.get("seed_id"))),
        slot_id=to_name(_first(attributes.get("slot_id"), data.get("slot_id"))),
        epoch=_whole("epoch", _first(attributes.get("epoch"), data.get("epoch") if known else None)),
        data=data,
        message=to_text(attributes.get("message")),
        severity=_severity(attributes.get("severity")),
        env_id=to_name(_first(_environment(attributes.get("env_id")), _environment(inner_env), env_id)),
        time_unix_nano=_time(attributes),
        event_id=to_name(attributes.get("event_id")) or new_event_id(),
        truncated=plain.truncated,
    )
    _check(event)
    return event


def _check(event: TelemetryEvent) -> None:
    if event.event_type.startswith("SEED_") and _known(event.event_type) and not event.seed_id:
        raise Rejected("no_seed_id", f"{event.event_type} has no seed_id")
    if event.event_type == EventType.SEED_STAGE_CHANGED and event.data.get("to") is None:
        raise Rejected("no_stage", "SEED_STAGE_CHANGED has no 'to' in its data")


def emitter(emit: Callable[[object], None], *, percent: bool, env_id: str | int | None) -> Callable[[object], None]:
    """Return a callback for ``on_telemetry`` that adds the producer's unit and environment to its events."""

    def receive(item: object) -> None:
        emit(ForeignEvent(item, percent=percent, env_id=env_id))

    return receive


class ForeignEvent:
    """A foreign event with the unit and environment of its producer."""

    __slots__ = ("env_id", "item", "percent")

    def __init__(self, item: object, *, percent: bool, env_id: str | int | None) -> None:
        self.item, self.percent, self.env_id = item, percent, env_id

    def normalize(self, limits: PayloadLimits) -> TelemetryEvent:
        """See `normalize`."""
        return normalize(self.item, percent=self.percent, env_id=self.env_id, limits=limits)


def _attributes(item: object) -> dict[str, Any]:
    try:
        if type(item) is TelemetryEvent:
            return dict(zip(_OWN_FIELDS, _own_values(item), strict=True))
        if isinstance(item, Mapping):
            return {name: item[name] for name in _FIELDS if name in item}
        return {name: getattr(item, name) for name in _FIELDS if hasattr(item, name)}
    except Exception as error:  # properties of the producer can raise anything
        raise Rejected("unreadable", f"reading a {type(item).__name__} raised {type(error).__name__}") from error


def _first(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def _known(event_type: str) -> bool:
    return event_type in EventType.__members__


def _event_type(value: object, item: object) -> str:
    given = value if isinstance(value, str) else getattr(value, "name", None)
    # A subclass of str, such as a string enumeration, may override the methods of text.
    name = str.__str__(given) if isinstance(given, str) else ""
    if not name:
        raise Rejected(
            "no_event_type", f"{type(item).__name__} has no attribute or key 'event_type' that contains a name"
        )
    alias = _TYPE_ALIASES.get(name.upper(), name.upper())
    return EventType(alias) if _known(alias) else printable_name(name)


def _environment(value: object) -> object:
    """Return the environment, None for -1, with which producers mark an unknown one."""
    if value is None or type(value) is str:
        return value
    number = isinstance(value, Integral) and not isinstance(value, bool)
    return None if number and value == _NO_ENVIRONMENT else value


def _whole(what: str, value: object) -> int | None:
    if value is None or (type(value) is int and -_MOST_INTEGER <= value < _MOST_INTEGER):
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise Rejected(f"bad_{what}", f"{what} is {to_plain_data(value)!r}, not a whole number")
    number = int(value)
    if not -_MOST_INTEGER <= number < _MOST_INTEGER:
        raise Rejected(f"bad_{what}", f"{what} is outside the range of 64-bit integers")
    return number


def _severity(value: object) -> Severity:
    if type(value) is Severity:
        return value
    for name in ("value", "name"):
        given = getattr(value, name, None)
        if isinstance(given, str) and (found := _severity_named(given)) is not None:
            return found
    return (_severity_named(value) if isinstance(value, str) else None) or Severity.INFO


def _severity_named(name: str) -> Severity | None:
    return Severity.__members__.get(str.__str__(name).upper())


def _time(attributes: Mapping[str, Any]) -> int:
    at = _whole("time", attributes.get("time_unix_nano"))
    if at is None:
        at = _moment(attributes.get("timestamp"))
    if not 0 <= at < _LATEST:
        raise Rejected("bad_time", f"{at} nanoseconds since 1970 is outside the range of OTLP timestamps")
    return at


def _moment(moment: object) -> int:
    if moment is None:
        return time_ns()
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if isinstance(moment, datetime):
            return nanoseconds(moment)
        if not isinstance(moment, bool) and isinstance(moment, Real):
            exact = Fraction(int(moment) if isinstance(moment, Integral) else float(moment))
            return round(exact * 1_000_000_000)
    except (ValueError, OverflowError) as error:  # raised for NaN and infinity, among others
        raise Rejected("bad_time", str(error)) from error
    raise Rejected("bad_time", f"timestamp is a {type(moment).__name__}; give a datetime, ISO text or Unix seconds")


def _data(event_type: str, payload: object, plain: PlainData, *, percent: bool) -> dict[str, Any]:
    if payload is None:
        return {}
    entries = _entries(payload)
    try:
        return (
            _known_data(event_type, entries, plain, percent=percent) if _known(event_type) else plain.mapping(entries)
        )
    except Rejected:
        raise
    except Exception as error:  # an iterator of the producer can raise anything
        raise Rejected("unreadable", f"reading the data raised {type(error).__name__}") from error


def _known_data(
    event_type: str, entries: Iterable[tuple[object, object]], plain: PlainData, *, percent: bool
) -> dict[str, Any]:
    """Return the data of a known event with our names of the keys, fractions and names of stages."""
    data: dict[str, Any] = {}
    stages = _STAGE_KEYS if event_type == EventType.SEED_STAGE_CHANGED else frozenset()
    for key, value in entries:
        if not plain.take_item():
            break
        text = plain.key(key)
        name = _KEY_ALIASES.get(text, text)
        if data.get(name) is None or (name == text and value is not None):
            data[name] = _stage(value) if name in stages and value is not None else plain(value)
    return _typed({key: _fraction(value) if percent and key in _PERCENT_KEYS else value for key, value in data.items()})


def _is_typed(data: dict[str, Any]) -> bool:
    """Whether `_typed` would change nothing in plain data."""
    if _TYPED_KEYS.isdisjoint(data):
        return True
    for key, value in data.items():
        if key in _TYPED_KEYS and value is not None:
            typed = _is_name(value) if key in _NAME_KEYS else key in _TEXT_KEYS and type(value) is str
            if not typed:
                return False
    return True


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    """Give the entries that backends read the type that they expect: names, sentences and lists of names."""
    for key, value in data.items():
        if value is None:
            continue
        if key in _NAME_KEYS:
            data[key] = to_name(value)
        elif key in _TEXT_KEYS and not isinstance(value, str):
            data[key] = to_text(value)
        elif key in _LIST_KEYS:
            data[key] = [to_name(each) or "None" for each in (value if isinstance(value, list) else [value])]
    return data


def _entries(payload: object) -> Iterable[tuple[object, object]]:
    try:
        entries = (
            None if hasattr(type(payload), "shape") else as_mapping(payload)
        )  # arrays and tensors have attributes, but are not payloads
        if entries is not None:
            return entries.items()
    except Exception as error:  # properties of the producer can raise anything
        raise Rejected("unreadable", f"reading the data raised {type(error).__name__}") from error
    raise Rejected("bad_data", f"data is a {type(payload).__name__}, neither a mapping nor an object with attributes")


def _fraction(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value / 100


def _stage(value: object) -> str:
    name = getattr(value, "name", None)
    try:
        return Stage.parse(name if isinstance(name, str) else to_plain_data(value)).label
    except UnknownNameError as error:
        raise Rejected("unknown_stage", str(error)) from error
