import enum
import math
import pathlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from nissa.hub.normalize import normalize
from nissa.hub.plain_data import to_plain_data


def _refuse(*_arguments: object, **_named: object) -> NoReturn:
    raise AssertionError("the value was read")


class OnDevice:
    """Behaves like a tensor that nobody may read."""

    shape = (2, 3)
    __float__ = __int__ = __index__ = __bool__ = __array__ = __iter__ = __len__ = _refuse
    __str__ = __repr__ = __format__ = __eq__ = __lt__ = _refuse
    __hash__ = object.__hash__
    item = tolist = numpy = cpu = _refuse


DESCRIBED = "<OnDevice (2, 3)>"


@dataclass
class Statistics:
    layer: str
    norm: Any


def deep(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_on_a_device_is_described_and_never_read() -> None:
    device = OnDevice()
    data = {
        "loss": device,
        "improvement": device,
        "list": [device],
        "nested": {"deep": ({device: device},)},
        "statistics": (Statistics("conv", device),),
        "very deep": deep(device, 30),
    }
    event = normalize({"event_type": "EPOCH_COMPLETED", "data": data}, percent=True)

    assert event.data["loss"] == event.data["improvement"] == DESCRIBED
    assert event.data["list"] == [DESCRIBED]
    assert event.data["nested"] == {"deep": [{DESCRIBED: DESCRIBED}]}
    assert event.data["statistics"] == [{"layer": "conv", "norm": DESCRIBED}]
    assert "<list>" in str(event.data["very deep"])


@pytest.mark.parametrize("name", ["seed_id", "slot_id", "env_id", "message", "event_id", "severity"])
def test_an_attribute_on_a_device_is_not_read_either(name: str) -> None:
    event = normalize({"event_type": "X", name: OnDevice()})

    assert getattr(event, name) == ("info" if name == "severity" else DESCRIBED)


def test_tensors_and_arrays_are_described_by_type_and_shape() -> None:
    assert to_plain_data(torch.zeros(2, 3)) == "<Tensor (2, 3)>"
    assert to_plain_data(torch.nn.Parameter(torch.zeros(2))) == "<Parameter (2,)>"
    assert to_plain_data(torch.tensor(1.0, device="meta")) == "<Tensor ()>"
    assert to_plain_data(torch.zeros(3, device="meta")) == "<Tensor (3,)>"
    assert to_plain_data(np.zeros((4, 0))) == "<ndarray (4, 0)>"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor(True), True),
        (np.array(0.5), 0.5),
        (np.array(3), 3),
        (np.array(False), False),
        (torch.tensor(1j), "<Tensor ()>"),
        (np.array("text"), "<ndarray ()>"),
    ],
)
def test_a_single_number_on_the_host_is_a_number(given: object, expected: object) -> None:
    found = to_plain_data(given)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(-3), -3),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.bool_(False), False),
        (np.str_("text"), "text"),
        (Fraction(1, 4), 0.25),
    ],
)
def test_numpy_s_and_other_scalars_become_python_s(given: object, expected: object) -> None:
    found = to_plain_data(given)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), 0.0, math.inf, True, False, None, "", "text"])
def test_plain_values_stay_as_they_are(value: object) -> None:
    assert to_plain_data(value) is value or to_plain_data(value) == value
    assert type(to_plain_data(value)) is type(value)


def test_not_a_number_stays_that() -> None:
    assert math.isnan(to_plain_data(math.nan))
    assert math.isnan(to_plain_data(np.float16("nan")))


def test_a_number_that_no_export_carries_becomes_text() -> None:
    assert to_plain_data(2**63) == "9223372036854775808"
    assert to_plain_data(Fraction(10**400, 3)).endswith("/3")
    assert to_plain_data(10**5000) == "<int>"


class Color(enum.Enum):
    RED = 1


class Word(str, enum.Enum):  # noqa: UP042 - the older form, whose text is its name
    COSINE = "cosine"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(("member", "expected"), [(Color.RED, "RED"), (Word.COSINE, "cosine"), (Level.HIGH, 3)])
def test_a_member_of_an_enumeration_becomes_its_name_or_the_value_that_it_is(member: object, expected: object) -> None:
    assert to_plain_data(member) == expected
    assert type(to_plain_data(member)) is type(expected)


def test_containers_are_copied_all_the_way_down() -> None:
    inner = [1]
    outer = {"a": {"b": inner}, 3: (1, {2})}
    copied = to_plain_data(outer)
    inner.append(2)

    assert copied == {"a": {"b": [1]}, "3": [1, [2]]}


def test_a_container_that_contains_itself_comes_to_an_end() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert "<list>" in str(to_plain_data(endless))


def test_objects_become_their_text_or_their_type_where_they_have_none() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    class Shapeless:
        shape = 5

    assert to_plain_data(pathlib.PurePosixPath("/tmp/x")) == "/tmp/x"  # noqa: S108 - a name, not a file
    assert to_plain_data(torch.device("cpu")) == "cpu"
    assert to_plain_data(ValueError("text")) == "text"
    assert to_plain_data(Mute()) == "<Mute>"
    assert to_plain_data(Shapeless()) == "<Shapeless>"
