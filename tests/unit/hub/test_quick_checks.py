"""Checks that spare an event its conversion: what they let pass, the conversion would not have changed."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import EventType, Severity, TelemetryEvent
from nissa.hub import plain_data
from nissa.hub.normalize import _normalized, normalize, own_event
from nissa.hub.plain_data import PayloadLimits, is_plain, to_plain_data


class Text(str):
    """Text whose methods are those of somebody else."""

    __slots__ = ()


KEYS = [
    "blueprint_id",
    "flag",
    "gate",
    "error",
    "reason",
    "checks_failed",
    "checks_passed",
    "to",
    "params",
    "loss",
    "note",
]
keys = st.one_of(
    st.sampled_from(KEYS),
    st.text(max_size=3),
    st.sampled_from(["k" * 64, "k" * 65, "k" * 300, "a\nb", Text("loss"), 3]),
)
texts = st.one_of(
    st.text(max_size=5), st.sampled_from(["n" * 256, "n" * 257, "t" * 9_000, "\x1b[2J", "\ud800", Text("x"), ""])
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
beyond = st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1])
values = st.one_of(scalars, beyond, st.lists(scalars, max_size=3), st.sampled_from([b"x", 1j]))
payloads = st.dictionaries(keys, values, max_size=2)
limits = st.builds(PayloadLimits, items=st.integers(1, 2), characters=st.sampled_from([10, 300, 65_536]))
kinds = st.sampled_from(
    [EventType.SEED_GATE_EVALUATED, EventType.EPOCH_COMPLETED, "OWN", "epoch_completed", "a\nb", Text("OWN"), ""]
)
names = st.one_of(st.none(), texts)
unusual = st.one_of(
    st.tuples(st.just("event_type"), kinds),
    *(st.tuples(st.just(field), names) for field in ("seed_id", "slot_id", "env_id")),
    st.tuples(st.just("message"), texts),
    st.tuples(st.just("severity"), st.sampled_from([Severity.ERROR, "warning", None])),
    st.tuples(st.just("epoch"), st.one_of(st.booleans(), st.integers(), beyond)),
    st.tuples(st.just("time_unix_nano"), st.sampled_from([0, 2**63 - 1, 2**63, -1, True])),
    st.tuples(st.just("event_id"), st.sampled_from(["id", "a\nb", "i" * 256, "i" * 257, Text("id")])),
)
"""A field of an event, and an unusual value."""


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, NaN and types included."""
    return repr(one) == repr(other) and type(one) is type(other)


@given(payload=payloads, limits=limits)
@settings(max_examples=400)
def test_a_payload_that_is_plain_stays_as_it_is(payload: dict[Any, Any], limits: PayloadLimits) -> None:
    if is_plain(payload, limits):
        assert same(to_plain_data(payload, limits), payload)
        assert all(type(key) is str for key in payload)


@given(payload=payloads, message=texts, slot=names)
@settings(max_examples=400)
def test_an_event_of_a_run_that_stays_as_it_is_needs_no_conversion(
    payload: dict[Any, Any], message: str, slot: str | None
) -> None:
    event = TelemetryEvent(EventType.SEED_CULLED, seed_id="s", slot_id=slot, data=payload, message=message)
    bounded = own_event(event, PayloadLimits())
    if bounded is event:
        # A key that it does not know makes the quick check give up.
        converted = own_event(event.changed(data={**payload, b"bytes": None}), PayloadLimits())
        assert converted.data.pop("bytes") is None
        assert same(converted.data, payload)
        assert (converted.message, converted.slot_id, converted.truncated) == (message, slot, False)


@given(kind=st.sampled_from(["OWN", EventType.EPOCH_COMPLETED]), data=payloads, fields=st.lists(unusual, max_size=1))
@settings(max_examples=400)
def test_a_quick_event_is_the_converted_one(kind: str, data: dict[Any, Any], fields: list[tuple[str, Any]]) -> None:
    usual: dict[str, Any] = {"event_type": kind, "data": data, "event_id": "id", "time_unix_nano": 1}
    event = TelemetryEvent(**usual | dict(fields))

    def outcome(convert: Callable[..., TelemetryEvent], **how: Any) -> Any:
        try:
            return convert(event, limits=PayloadLimits(), **how)
        except ValueError as error:
            return str(error)

    quick, slow = outcome(normalize), outcome(_normalized, percent=False, env_id=None)
    assert same(quick, slow)
    assert not isinstance(quick, TelemetryEvent) or quick.data is not event.data


def test_the_keys_that_are_remembered_are_bounded() -> None:
    for number in range(3_000):
        assert is_plain({f"key {number}": 1}, PayloadLimits())
    assert len(plain_data._KNOWN_KEYS) <= 1_000
    assert not is_plain({"key 1\n": 1}, PayloadLimits())
