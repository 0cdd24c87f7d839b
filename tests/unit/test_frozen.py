"""Frozen dataclasses with a quick constructor behave as those with the constructor that `dataclasses` generates."""

import copy
import inspect
import pickle
import weakref
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from nissa import TelemetryEvent
from nissa.analytics.lives import SeedLife
from nissa.events import SeedSnapshot, SpanIds
from nissa.frozen import quick_changed, quick_init


@quick_changed
@quick_init
@dataclass(frozen=True, slots=True)
class Quick:
    name: str
    size: int = 3
    parts: list[int] = field(default_factory=list)

    def changed(self, **fields: Any) -> "Quick":
        """Return a copy with other values."""
        return replace(self, **fields)


@dataclass(frozen=True, slots=True)
class Slow:
    name: str
    size: int = 3
    parts: list[int] = field(default_factory=list)


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords:
    name: str
    size: int = 3


class Below(Quick):
    """Has a dictionary of attributes, and so another layout."""


@pytest.mark.parametrize("given", [{}, {"size": 4}, {"size": 0, "parts": [1]}], ids=repr)
def test_it_has_the_fields_of_the_slow_one(given: dict[str, Any]) -> None:
    quick, slow = Quick("a", **given), Slow("a", **given)
    assert type(quick) is Quick
    assert repr(quick) == repr(slow).replace("Slow", "Quick")
    assert quick == Quick("a", **given) != Quick("b", **given)


def test_it_has_the_signature_of_the_slow_one() -> None:
    assert inspect.signature(Quick) == inspect.signature(Slow)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Quick()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional arguments but 5 were given"):
        Quick("a", 1, [], 4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'other'"):
        Quick("a", other=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Keywords("a")  # type: ignore[call-arg]
    assert (Keywords(name="a").size, Keywords(size=1, name="a").size) == (3, 1)


def test_a_default_that_is_made_is_made_for_each() -> None:
    assert Quick("a").parts == []
    assert Quick("a").parts is not Quick("a").parts


def test_nobody_can_change_it() -> None:
    quick = Quick("a")
    with pytest.raises(FrozenInstanceError):
        quick.name = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del quick.name
    with pytest.raises((AttributeError, TypeError)):
        quick.more = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        weakref.ref(quick)
    assert quick == Quick("a")


def test_it_can_be_copied_and_sent() -> None:
    quick = Quick("a", 5, [1])
    for again in (copy.copy(quick), copy.deepcopy(quick), pickle.loads(pickle.dumps(quick)), replace(quick)):  # noqa: S301
        assert type(again) is Quick
        assert again == quick
    assert replace(quick, size=6) == Quick("a", 6, [1]) == quick.changed(size=6)


def test_a_copy_changes_what_is_given_and_shares_the_rest() -> None:
    quick = Quick("a", 5, [1])
    changed = quick.changed(name="b", size=0)
    assert type(changed) is Quick
    assert (changed.name, changed.size, changed.parts) == ("b", 0, [1])
    assert changed.parts is quick.parts
    assert (quick.name, quick.size) == ("a", 5)
    with pytest.raises(TypeError, match="'other'"):
        quick.changed(other=1)
    assert Quick.changed.__doc__ == "Return a copy with other values."


def test_a_class_below_it_still_works() -> None:
    below = Below("a", parts=[2])
    assert type(below) is Below
    assert (below.name, below.size, below.parts) == ("a", 3, [2])
    with pytest.raises(FrozenInstanceError):
        below.size = 4  # type: ignore[misc]


@pytest.mark.parametrize("kind", [TelemetryEvent, SeedSnapshot, SpanIds, SeedLife])
def test_what_is_made_for_each_event_has_a_quick_constructor_that_sets_each_field(kind: type) -> None:
    given = {each.name: object() for each in fields(kind)}
    made = kind(**given)
    assert {name: getattr(made, name) for name in given} == given
    assert "__wrapped__" in vars(vars(kind)["__init__"])
    with pytest.raises(FrozenInstanceError):
        setattr(made, next(iter(given)), 1)
