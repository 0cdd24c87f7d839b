"""Payloads without bounds, and values whose methods raise: bounded plain data, or one counted rejection."""

import contextlib
import json
from datetime import UTC, datetime
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import EventType, MemoryBackend, NissaHub, TelemetryEvent
from nissa.hub.normalize import Rejected, normalize
from nissa.hub.plain_data import PayloadLimits, PlainData, to_plain_data
from nissa.printable import MOST_TEXT
from tests import hostile
from tests.cases import for_each

KEYS = ["gate", "passed", "checks_failed", "checks_passed", "reason", "alpha", "parameters", "epochs_total", "flag"]
FIELDS = ["seed_id", "slot_id", "env_id", "message", "severity", "epoch", "time_unix_nano", "timestamp", "event_id"]
items = st.fixed_dictionaries(
    {"event_type": st.sampled_from([*EventType]) | hostile.nested, "data": hostile.nested},
    optional=dict.fromkeys(FIELDS, hostile.nested),
) | st.fixed_dictionaries(
    {
        "event_type": st.sampled_from([*EventType, "OWN\x1b"]),
        "seed_id": hostile.names,
        "data": st.dictionaries(st.sampled_from(KEYS) | hostile.texts, hostile.nested, max_size=4),
    }
)


def size(value: object) -> tuple[int, int, int]:
    """Return entries, depth and characters of plain data."""
    if isinstance(value, str):
        return 0, 0, len(value)
    entries = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    if entries is None:
        return 0, 0, 0
    sizes = [size(entry) for entry in entries]
    keys = sum(map(len, value)) if isinstance(value, dict) else 0
    return (
        len(entries) + sum(each[0] for each in sizes),
        1 + max((each[1] for each in sizes), default=0),
        keys + sum(each[2] for each in sizes),
    )


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [each for key, entry in value.items() for each in (key, *strings(entry))]
    if isinstance(value, list):
        return [each for entry in value for each in strings(entry)]
    return [value] if isinstance(value, str) else []


@given(items, st.booleans())
@settings(max_examples=150)
def test_whatever_comes_is_a_bounded_event_with_safe_text_or_rejected(item: dict[str, Any], percent: bool) -> None:
    with contextlib.suppress(Rejected):
        event = normalize(item, percent=percent)
        limits = PayloadLimits()
        entries, depth, characters = size(event.data)
        assert entries <= limits.items
        assert depth <= limits.depth + 1
        assert characters <= limits.characters + 300
        assert all(map(hostile.is_safe, strings(event.to_dict())))
        assert all(len(text) <= MOST_TEXT for text in strings(event.to_dict()))
        json.dumps(event.to_dict())


@given(items)
@settings(max_examples=60)
def test_a_hub_neither_raises_nor_counts_a_fault(item: dict[str, Any]) -> None:
    hub = NissaHub()
    memory = MemoryBackend()
    hub.add_backend(memory)
    hub.emit(item)
    assert hub.close()
    assert not hub.error_boundary.faults
    assert len(memory.events) + sum(hub.rejections.values()) == 1


@for_each(
    "payload",
    [
        {"self": hostile.itself()},
        {"many": list(range(1_000_000))},
        {"many": dict.fromkeys(range(1_000_000))},
        dict.fromkeys(map(str, range(1_000_000))),
        {"endless": hostile.Endless()},
        hostile.Endless(),
        {"text": ["x" * 100_000] * 100},
        {"deep": hostile.deep()},
    ],
    ids=lambda payload: f"{type(payload).__name__} of {len(payload)}",
)
def test_a_payload_without_bounds_is_cut_and_marked_in_milliseconds(payload: Any) -> None:
    for event_type in ("OWN", EventType.EPOCH_COMPLETED):
        began = process_time()
        event = normalize({"event_type": event_type, "data": payload})
        assert process_time() - began < 0.5  # a thousand entries; it took seconds
        assert event.truncated
        assert event.to_dict()["truncated"] is True


def test_a_payload_within_the_limits_is_not_marked() -> None:
    event = normalize({"event_type": "OWN", "data": {"list": list(range(900)), "text": "x" * MOST_TEXT}})
    assert not event.truncated
    assert "truncated" not in event.to_dict()
    assert event.data["list"] == list(range(900))


def test_the_limits_are_those_of_the_call() -> None:
    limits = PayloadLimits(items=3, depth=1, characters=10)
    event = normalize({"event_type": "OWN", "data": {"a": [1, 2], "b": {"c": 1}, "d": 1, "e": 1}}, limits=limits)
    assert event.data == {"a": [1, 2]}
    plain = PlainData(limits)
    assert (plain({"a": {"b": 1}}), plain.truncated) == ({"a": "<dict>"}, True)
    plain = PlainData(limits)
    assert (plain("0123456789x"), plain.truncated) == ("012345678…", True)


def test_a_raising_value_costs_only_itself() -> None:
    data = {"a": 1, "b": hostile.Raises(), "c": [hostile.RaisesAtAttributes(), 2], "d": hostile.changing(), "e": 5}
    event = normalize({"event_type": "OWN", "data": data})
    assert (event.data["a"], event.data["b"], event.data["c"], event.data["e"]) == (
        1,
        "<Raises>",
        ["<RaisesAtAttributes>", 2],
        5,
    )


def test_values_of_subclasses_are_read_without_their_methods() -> None:
    event = normalize({"event_type": hostile.RaisingText("seed_culled"), "seed_id": hostile.RaisingText("s\x1b")})
    assert (event.event_type, event.seed_id) == (EventType.SEED_CULLED, r"s\x1b")
    assert to_plain_data(hostile.RaisingText("text")) == "text"
    assert to_plain_data(hostile.RaisingNumber(5)) == "<RaisingNumber>"


def test_bytes_are_text() -> None:
    event = normalize({"event_type": "SEED_CULLED", "seed_id": b"seed-\xff", "data": {"reason": bytearray(b"late")}})
    assert (event.seed_id, event.data) == (r"seed-\xff", {"reason": "late"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [("gain", ["gain"]), (5, ["5"]), ([1, None, "a\n"], ["1", "None", r"a\n"]), ({"a": 1}, ["<dict>"]), ((), [])],
)
def test_the_checks_of_a_gate_are_a_list_of_names(given: object, expected: list[str]) -> None:
    event = normalize({"event_type": "SEED_GATE_EVALUATED", "seed_id": "s", "data": {"checks_failed": given}})
    assert event.data["checks_failed"] == expected


def test_an_event_may_be_older_than_the_one_before() -> None:
    moments = [datetime(2025, 1, day, tzinfo=UTC) for day in (3, 2, 1)]
    times = [normalize({"event_type": "OWN", "timestamp": moment}).time_unix_nano for moment in moments]
    assert times == sorted(times, reverse=True)


def test_an_event_that_was_normalised_stays_as_it_is() -> None:
    event = normalize(TelemetryEvent("OWN\n", seed_id="\x1b" * 500, data={"k\x00": "\ud800"}, message="a\nb"))
    assert normalize(event) == event
