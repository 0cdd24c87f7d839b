from collections.abc import Iterator
from typing import Any

import pytest

from nissa.config import Setting, TelemetryConfig, describe

SETTINGS = {setting.path: setting for setting in describe(TelemetryConfig)}


def test_every_leaf_is_described_once_in_its_declared_order() -> None:
    def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, value in settings.items():
            if isinstance(value, dict) and f"{prefix}{name}" != "analytics.compute_multipliers":
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    assert [setting.path for setting in describe(TelemetryConfig)] == list(leaves(TelemetryConfig().model_dump()))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("history_length", "a whole number from 5 to 100"),
        ("strict", "true or false or null"),
        ("gradients.layers", "'all' or a list, each item text"),
        ("gradients.percentiles", "a list, each item a number from 0 to 100"),
        ("gradients.vanishing_threshold", "a number above 0"),
        ("diagnostics.improvement_delta", "a number above 0 and at most 1"),
        ("gradients.top_k", "a whole number from 1 to 100,000 or null"),
        ("gradients.group_by", "one of parameter, module, block"),
        ("gradients.ranks", "one of auto, first, all"),
        ("analytics.compute_multipliers", "a mapping, each value a number above 0 and at most 1,000"),
        ("files.directory", "text"),
    ],
)
def test_what_is_allowed_is_put_into_words(path: str, allowed: str) -> None:
    assert SETTINGS[path].allowed == allowed


def test_a_setting_carries_default_meaning_and_variable() -> None:
    assert SETTINGS["gradients.max_parameters"] == Setting(
        path="gradients.max_parameters",
        default=200,
        allowed="a whole number from 1 to 100,000",
        description="Maximum number of parameters with streams of their own; the others are merged into the block they belong to.",
    )
    assert SETTINGS["gradients.max_parameters"].variable == "NISSA_GRADIENTS__MAX_PARAMETERS"


def test_a_default_that_depends_on_its_neighbours_is_shown_too() -> None:
    assert SETTINGS["gradients.percentiles"].default == (1.0, 50.0, 99.0)


def test_every_meaning_fits_into_a_line_of_a_table() -> None:
    assert [path for path, setting in SETTINGS.items() if "\n" in setting.description] == []
    assert "regular expressions such as" in SETTINGS["gradients.layers"].description
