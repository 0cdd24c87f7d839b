import copy
from types import MappingProxyType
from typing import Any

import pytest

from nissa.config import expand
from nissa.config.merging import merge
from nissa.errors import ConfigurationError


def test_merging_reaches_every_depth_and_replaces_lists() -> None:
    base = {"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "f": 3}
    assert merge(base, {"a": {"b": {"c": 9}, "e": [7]}}) == {"a": {"b": {"c": 9, "d": 2}, "e": [7]}, "f": 3}


def test_merging_leaves_both_sides_untouched() -> None:
    base: dict[str, Any] = {"a": {"b": 1}}
    top: dict[str, Any] = {"a": {"c": {"d": 2}}}
    before = copy.deepcopy((base, top))
    merged = merge(base, top)
    merged["a"]["b"] = 5
    assert (base, top) == before


def test_a_value_that_is_no_mapping_replaces_a_section() -> None:
    assert merge({"a": {"b": 1}}, {"a": None}) == {"a": None}
    assert merge({"a": 1}, {"a": {"b": 1}}) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    "flat",
    [
        {"gradients__every_n_steps": 1},
        {"gradients.every_n_steps": 1},
        {"gradients": {"every_n_steps": 1}},
        MappingProxyType({"gradients": MappingProxyType({"every_n_steps": 1})}),
    ],
)
def test_each_spelling_expands_to_the_same(flat: Any) -> None:
    assert expand(flat) == {"gradients": {"every_n_steps": 1}}


def test_spellings_may_be_mixed() -> None:
    given = {"gradients": {"enabled": True}, "gradients.layers": "all", "gradients__every_n_steps": 1, "strict": None}
    assert expand(given) == {"gradients": {"enabled": True, "layers": "all", "every_n_steps": 1}, "strict": None}


@pytest.mark.parametrize(
    "given",
    [
        {"gradients.enabled": True, "gradients__enabled": True},
        {"gradients": {"enabled": True}, "gradients.enabled": False},
    ],
)
def test_a_setting_in_two_spellings_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"gradients\.enabled is set twice.*keep one"):
        expand(given)


def test_a_section_given_whole_and_in_part_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="gradients is set twice"):
        expand({"gradients": None, "gradients.enabled": True})


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="key 3 is not text"):
        expand({3: 1})  # type: ignore[dict-item]
