"""Normalization of emitted objects to `TelemetryEvent`, or rejection with a reason.

The input is a `TelemetryEvent`, or any object or mapping with its attributes. The seed slots of other packages, for
example, pass such events to ``on_telemetry``. Their vocabulary differs between versions; this module is the only place
that maps it. `to_plain_data` converts the values: the result is safe to store, share between threads and export. A value
on a device is never read, because that would wait for the device. It is replaced by a description.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from fractions import Fraction
from numbers import Integral, Real
from time import time_ns
from typing import Any, Final

from nissa.errors import UnknownNameError
from nissa.events import EventType, Severity, Stage, TelemetryEvent, as_mapping, nanoseconds

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
_FIELDS: Final = (*TelemetryEvent.__dataclass_fields__, "timestamp")
_NO_ENVIRONMENT: Final = -1
_LATEST: Final = 2**63  # nanoseconds; OTLP carries no later time
_MOST_NESTING: Final = 6
_MOST_INTEGER: Final = 2**63  # limit of OTLP integers


class Rejected(ValueError):  # noqa: N818 - it is an outcome, counted by its reason, and never leaves the hub
    """An invalid event; ``reason`` is one of a few short names, so that rejections can be counted by it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def normalize(item: object, *, percent: bool = False, env_id: str | int | None = None) -> TelemetryEvent:
    """Return ``item`` as a `TelemetryEvent` that shares no mutable state with it.

    Args:
        item: A `TelemetryEvent`, or an object or mapping with its attributes.
        percent: Whether accuracies and improvements in its data are in percent; they are converted to fractions.
        env_id: Environment of an event that does not name one.

    Raises:
        Rejected: The item is not a valid event.
    """
    attributes = _attributes(item)
    event_type = _event_type(attributes.get("event_type"), item)
    data = _data(event_type, attributes.get("data"), percent=percent)
    known = _known(event_type)
    inner_env = data.pop("env_id", None) if known else data.get("env_id")
    event = TelemetryEvent(
        event_type=event_type,
        seed_id=_text(_first(attributes.get("seed_id"), data.get("seed_id"))),
        slot_id=_text(_first(attributes.get("slot_id"), data.get("slot_id"))),
        epoch=_whole("epoch", _first(attributes.get("epoch"), data.get("epoch") if known else None)),
        data=data,
        message=_text(attributes.get("message")) or "",
        severity=_severity(attributes.get("severity")),
        env_id=_text(_first(_environment(attributes.get("env_id")), _environment(inner_env), env_id)),
        time_unix_nano=_time(attributes),
        event_id=_text(attributes.get("event_id")) or uuid.uuid4().hex,
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

    def normalize(self) -> TelemetryEvent:
        """See `normalize`."""
        return normalize(self.item, percent=self.percent, env_id=self.env_id)


def _attributes(item: object) -> dict[str, Any]:
    try:
        if isinstance(item, Mapping):
            return {name: item[name] for name in _FIELDS if name in item}
        return {name: getattr(item, name) for name in _FIELDS if hasattr(item, name)}
    except Exception as error:  # properties of the producer can raise anything
        raise Rejected("unreadable", f"reading a {type(item).__name__} raised {type(error).__name__}") from error


def _first(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def _text(value: object) -> str | None:
    return None if value is None else str(to_plain_data(value))


def _known(event_type: str) -> bool:
    return event_type in EventType.__members__


def _event_type(value: object, item: object) -> str:
    given = getattr(value, "name", value)
    if not isinstance(given, str) or not given:
        raise Rejected(
            "no_event_type", f"{type(item).__name__} has no attribute or key 'event_type' that contains a name"
        )
    alias = _TYPE_ALIASES.get(given.upper(), given.upper())
    return EventType(alias) if _known(alias) else str.__str__(given)


def _environment(value: object) -> object:
    """Return the environment, None for -1, with which producers mark an unknown one."""
    number = isinstance(value, Integral) and not isinstance(value, bool)
    return None if number and value == _NO_ENVIRONMENT else value


def _whole(what: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise Rejected(f"bad_{what}", f"{what} is {to_plain_data(value)!r}, not a whole number")
    return int(value)


def _severity(value: object) -> Severity:
    for given in (getattr(value, "value", None), getattr(value, "name", None), value):
        if isinstance(given, str) and given.upper() in Severity.__members__:
            return Severity[given.upper()]
    return Severity.INFO


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


def _data(event_type: str, payload: object, *, percent: bool) -> dict[str, Any]:
    if payload is None:
        return {}
    entries = _entries(payload)
    if not _known(event_type):
        return {key: to_plain_data(value) for key, value in entries.items()}
    data: dict[str, Any] = {}
    for key, value in entries.items():
        name = _KEY_ALIASES.get(key, key)
        if data.get(name) is None or (name == key and value is not None):
            stage = name in _STAGE_KEYS and event_type == EventType.SEED_STAGE_CHANGED and value is not None
            data[name] = _stage(value) if stage else to_plain_data(value)
    return {key: _fraction(value) if percent and key in _PERCENT_KEYS else value for key, value in data.items()}


def _entries(payload: object) -> dict[str, Any]:
    try:
        entries = (
            None if hasattr(type(payload), "shape") else as_mapping(payload)
        )  # arrays and tensors have attributes, but are not payloads
        if entries is not None:
            return {str(to_plain_data(key)): value for key, value in entries.items()}
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


def to_plain_data(value: object, depth: int = 0) -> Any:
    """Return a value as plain data, without tensors, numpy scalars or shared mutable objects."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # for a member of a string enumeration this returns its value, not its name
    if isinstance(value, Integral | Real):
        return _number(value)
    if type(value).__module__ == "numpy" and type(value).__name__ in {"bool", "bool_"}:
        return bool(value)
    nested = None if depth >= _MOST_NESTING else _nested(value, depth + 1)
    return _described(value) if nested is None else nested


def _number(value: Integral | Real) -> Any:
    if not isinstance(value, Integral):
        try:
            return float(value)
        except OverflowError:  # a fraction beyond the range of a float
            return _described(value)
    whole = int(value)
    return whole if -_MOST_INTEGER <= whole < _MOST_INTEGER else _described(whole)


def _nested(value: object, depth: int) -> dict[str, Any] | list[Any] | None:
    if isinstance(value, Mapping):
        return {str(to_plain_data(key, _MOST_NESTING)): to_plain_data(entry, depth) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain_data(entry, depth) for entry in value]
    names = getattr(type(value), "__dataclass_fields__", None)
    return None if names is None else {name: to_plain_data(getattr(value, name, None), depth) for name in names}


def _described(value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping | list | tuple | set | frozenset) or hasattr(type(value), "__dataclass_fields__"):
        return f"<{kind}>"  # str() would include all nested values
    try:
        if isinstance(value, Enum):
            return value.name
        shape = getattr(value, "shape", None)  # an array or tensor
        return str(value) if shape is None else f"<{kind} {tuple(shape)}>"
    except Exception:  # noqa: BLE001 - whatever the producer's code raises
        return f"<{kind}>"
