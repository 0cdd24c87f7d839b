"""What cannot be understood is rejected for one of a few reasons, and nothing else is ever raised."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import EventType, Severity, Stage, TelemetryEvent
from nissa.hub.normalize import _CONVERTED_KEYS, Rejected, normalize
from nissa.hub.plain_data import DEFAULT_LIMITS, PayloadLimits

REASONS = {
    "bad_data",
    "bad_epoch",
    "bad_time",
    "no_event_type",
    "no_seed_id",
    "no_stage",
    "unknown_stage",
    "unreadable",
}


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class UnreadableObject:
    @property
    def event_type(self) -> str:
        raise RuntimeError


class NoOffset(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, moment: datetime | None, /) -> None:
        del moment

    def dst(self, moment: datetime | None, /) -> None:
        del moment

    def tzname(self, moment: datetime | None, /) -> None:
        del moment


def stage_change(data: object) -> dict[str, object]:
    return {"event_type": "SEED_STAGE_CHANGED", "seed_id": "s", "data": data}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (None, "no_event_type"),
        (5, "no_event_type"),
        ("SEED_CULLED", "no_event_type"),
        ({}, "no_event_type"),
        ({"event_type": ""}, "no_event_type"),
        ({"event_type": None}, "no_event_type"),
        ({"event_type": 5}, "no_event_type"),
        ({"event_type": np.zeros(3)}, "no_event_type"),
        ({"event_type": torch.zeros(3)}, "no_event_type"),
        (torch.zeros(3), "no_event_type"),
        (Unreadable(), "unreadable"),
        (UnreadableObject(), "unreadable"),
        ({"event_type": "X", "data": Unreadable()}, "unreadable"),
        ({"event_type": "X", "data": "text"}, "bad_data"),
        ({"event_type": "X", "data": [1]}, "bad_data"),
        ({"event_type": "X", "data": 0}, "bad_data"),
        ({"event_type": "X", "data": np.zeros(2)}, "bad_data"),
        ({"event_type": "X", "data": torch.zeros(2)}, "bad_data"),
        ({"event_type": "X", "epoch": True}, "bad_epoch"),
        ({"event_type": "X", "epoch": np.True_}, "bad_epoch"),
        ({"event_type": "X", "epoch": 1.0}, "bad_epoch"),
        ({"event_type": "X", "epoch": "1"}, "bad_epoch"),
        ({"event_type": "X", "epoch": 2**63}, "bad_epoch"),
        ({"event_type": "X", "epoch": -(10**400)}, "bad_epoch"),
        ({"event_type": "EPOCH_COMPLETED", "data": {"epoch": False}}, "bad_epoch"),
        ({"event_type": "X", "timestamp": "yesterday"}, "bad_time"),
        ({"event_type": "X", "timestamp": True}, "bad_time"),
        ({"event_type": "X", "timestamp": float("nan")}, "bad_time"),
        ({"event_type": "X", "timestamp": float("inf")}, "bad_time"),
        ({"event_type": "X", "timestamp": [1]}, "bad_time"),
        ({"event_type": "X", "timestamp": datetime(1969, 12, 31, tzinfo=UTC)}, "bad_time"),
        ({"event_type": "X", "timestamp": datetime.max.replace(tzinfo=UTC)}, "bad_time"),
        ({"event_type": "X", "time_unix_nano": -1}, "bad_time"),
        ({"event_type": "X", "time_unix_nano": 2**63}, "bad_time"),
        ({"event_type": "X", "time_unix_nano": 1.5}, "bad_time"),
        ({"event_type": "SEED_CULLED"}, "no_seed_id"),
        ({"event_type": "SEED_CULLED", "seed_id": ""}, "no_seed_id"),
        (TelemetryEvent(EventType.SEED_GATE_EVALUATED), "no_seed_id"),
        (stage_change({}), "no_stage"),
        (stage_change(None), "no_stage"),
        (stage_change({"to": None}), "no_stage"),
        (stage_change({"to": "nowhere"}), "unknown_stage"),
        (stage_change({"to": 11}), "unknown_stage"),
        (stage_change({"to": True}), "unknown_stage"),
        (stage_change({"to": "6"}), "unknown_stage"),
        (stage_change({"to": "training", "from": "nowhere"}), "unknown_stage"),
        (stage_change({"to": torch.tensor([3])}), "unknown_stage"),
    ],
)
def test_each_kind_of_nonsense_has_its_reason(item: object, reason: str) -> None:
    with pytest.raises(Rejected) as raised:
        normalize(item)

    assert raised.value.reason == reason
    assert reason in REASONS


def test_a_zone_without_an_offset_is_taken_as_utc() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 1, tzinfo=NoOffset())

    assert normalize({"event_type": "X", "timestamp": moment}).time_unix_nano == 1_000_000_000


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**330),
    st.floats(),
    st.fractions(),
    st.decimals(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(),
    st.sampled_from([*EventType, *Stage, "SEED_PRUNED", np.float32(1), np.True_, np.zeros(2), torch.zeros(2), object]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
    max_leaves=6,
)
KEYS = ["from", "to", "from_stage", "to_stage", "env_id", "epoch", "seed_id", "improvement", "params", "accuracy"]
keys = st.sampled_from(KEYS) | st.text(max_size=3) | st.integers() | st.none() | st.floats()
payloads = values | st.dictionaries(keys, values, max_size=5)
FIELDS = ["seed_id", "slot_id", "epoch", "message", "severity", "env_id", "time_unix_nano", "timestamp", "event_id"]


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    item = draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
    item["event_type"] = draw(st.sampled_from([*EventType]) | values)
    item["data"] = draw(payloads)
    return item


@dataclass
class Holder:
    """An object instead of a mapping."""

    event_type: Any
    data: Any


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value) in {int, float, bool, str, type(None)}


@given(item=items(), percent=st.booleans())
@settings(deadline=None, max_examples=400)
def test_whatever_comes_is_normalised_to_plain_data_or_rejected(item: dict[str, Any], percent: bool) -> None:
    for form in (item, Holder(item["event_type"], item["data"])):
        with contextlib.suppress(Rejected):
            event = normalize(form, percent=percent)
            assert is_plain(event.data)
            assert 0 <= event.time_unix_nano < 2**63
            assert isinstance(event.event_type, str)
            assert type(event.epoch) in {int, type(None)}
            for text in (event.seed_id, event.slot_id, event.env_id):
                assert type(text) in {str, type(None)}
            assert event.event_id


ordinary = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | payloads
)
names = st.sampled_from([None, "seed-1", "seed-1", "seed-1", "a\nb", "x" * 300])
converted = st.sampled_from([*_CONVERTED_KEYS, "loss", "a\nb"])


@given(
    kind=st.sampled_from([*EventType, "OWN", "own", "seed_pruned", ""]),
    fields=st.fixed_dictionaries(
        {
            "seed_id": names,
            "slot_id": names,
            "env_id": names,
            "epoch": st.sampled_from([None, 3, 3, 2**64, True]),
            "message": st.sampled_from(["", "so", "a\nb"]),
            "severity": st.sampled_from([*Severity, "warning"]),
            "time_unix_nano": st.sampled_from([0, 5, 5, 5, -1, 2**63]),
            "event_id": st.sampled_from(["id", "id", "id", "", "a\x1b"]),
            "data": st.dictionaries(
                converted, st.sampled_from(["training", "a\nb", 0.5, 3, 2**64, None]) | ordinary, max_size=3
            ),
        }
    ),
    limits=st.sampled_from([DEFAULT_LIMITS, PayloadLimits(items=3, characters=20)]),
)
@settings(deadline=None, max_examples=400)
def test_an_event_that_needs_no_conversion_is_what_its_conversion_would_make_of_it(
    kind: Any, fields: dict[str, Any], limits: PayloadLimits
) -> None:
    event = TelemetryEvent(kind, **fields)
    outcomes: list[Any] = []
    for form in (event, {"event_type": kind, **fields}):
        try:
            found = normalize(form, limits=limits)
        except Rejected as rejected:
            outcomes.append(rejected.reason)
        else:
            assert found.data is not fields["data"]
            outcomes.append(replace(found, event_id=found.event_id if fields["event_id"] else "a new one"))
    assert repr(outcomes[0]) == repr(outcomes[1])
