from typing import Any

import pytest

from nissa.config import TelemetryConfig
from nissa.errors import ConfigurationError, UnknownNameError


def refusal(overrides: dict[str, Any]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        TelemetryConfig.from_profile("standard", overrides)
    assert type(caught.value).__module__.startswith("nissa.")
    return caught.value


@pytest.mark.parametrize(
    ("overrides", "path", "meant"),
    [
        ({"histroy_length": 20}, "'histroy_length'", "'history_length'"),
        ({"every_n_steps": 1}, "'every_n_steps'", "'gradients.every_n_steps' or 'diagnosis.every_n_steps'"),
        ({"layers": ["a"]}, "'layers'", "'replicas.layers' or 'gradients.layers'"),
        ({"color": True}, "'color'", "'console.color'"),
        ({"gradient": {"enabled": True}}, "'gradient'", "'gradients'"),
        (
            {"gradients": {"every_n_step": 1}},
            "'gradients.every_n_step'",
            "'gradients.every_n_steps' or 'diagnosis.every_n_steps' or 'sharpness.every_n_epochs'",
        ),
        ({"limits.plateau_delta": 1}, "'limits.plateau_delta'", "'diagnostics.plateau_delta'"),
        ({"limits.max_parameters": 1}, "'limits.max_parameters'", "'gradients.max_parameters'"),
    ],
)
def test_an_unknown_setting_is_named_in_full_with_what_was_meant(
    overrides: dict[str, Any], path: str, meant: str
) -> None:
    error = refusal(overrides)
    assert isinstance(error, UnknownNameError)
    assert f"Unknown setting {path}" in str(error)
    assert f"Did you mean {meant}?" in str(error)


def test_an_unknown_setting_lists_its_section_and_nothing_else() -> None:
    message = str(refusal({"console": {"zzz": 1}}))
    assert message.endswith("Available here: console.enabled, console.every_seconds, console.color.")
    assert "Did you mean" not in message


def test_a_name_that_several_sections_know_ranks_them() -> None:
    error = refusal({"per_clas.enabled": True, "gradients": {}})
    assert "Did you mean 'per_class'" in str(error)
    assert "'replicas.enabled' or 'gradients.enabled' or 'per_class.enabled'" in str(refusal({"limits.enabled": 1}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"history_length": 3}, "history_length must be a whole number from 5 to 100, not 3 (from overrides)."),
        (
            {"gradients.every_n_steps": 0},
            "gradients.every_n_steps must be a whole number from 1 to 1,000,000, not 0 (from overrides).",
        ),
        (
            {"gradients.exploding_threshold": -2},
            "gradients.exploding_threshold must be a number above 0, not -2 (from overrides).",
        ),
        (
            {"gradients.percentiles": [1, 101]},
            "gradients.percentiles[1] must be a number from 0 to 100, not 101 (from overrides).",
        ),
        (
            {"gradients.percentiles": 5},
            "gradients.percentiles must be a list, each item a number from 0 to 100, not 5 (from overrides).",
        ),
        ({"gradients.layers": 3}, "gradients.layers must be 'all' or a list, each item text, not 3 (from overrides)."),
        ({"strict": "perhaps"}, "strict must be true or false or null, not 'perhaps' (from overrides)."),
        ({"limits": None}, "limits must be a mapping of settings, as in `limits: {...}`, not None (from overrides)."),
        (
            {"diagnostics.improvement_delta": 2},
            "diagnostics.improvement_delta must be a number above 0 and at most 1, not 2 (from overrides).",
        ),
    ],
)
def test_a_value_out_of_range_names_path_range_value_and_source(overrides: dict[str, Any], message: str) -> None:
    assert str(refusal(overrides)) == message


def test_an_unknown_statistic_lists_the_known_ones() -> None:
    message = str(refusal({"gradients.statistics": ["norm", "median"]}))
    assert "gradients.statistics[1] must be one of norm, mean, std," in message
    assert "not 'median'" in message


def test_thresholds_in_the_wrong_order_name_their_section() -> None:
    message = str(refusal({"gradients.vanishing_threshold": 1e4}))
    assert "gradients cannot be used: vanishing_threshold (10000) must be below exploding_threshold (1000)" in message


def test_several_problems_have_a_line_each() -> None:
    error = refusal({"history_length": 3, "foo": 1, "limits": {"queue_size": 0, "bar": 2}})
    lines = str(error).splitlines()
    assert len(lines) == 5
    assert {line.split("must")[0].split("(")[0].strip(" -") for line in lines[1:]} == {
        "history_length",
        "limits.queue_size",
        "Unknown setting 'foo'",
        "Unknown setting 'limits.bar'",
    }


def test_the_error_does_not_drag_the_validation_error_along() -> None:
    error = refusal({"history_length": 3})
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"warm_up": 1}, "diagnostics.rules.warm_up must be a whole number from 2 to 10,000, not 1"),
        ({"warmup": 3}, "Did you mean 'diagnostics.rules.warm_up'? Available here: diagnostics.rules.warm_up,"),
        (3, "diagnostics.rules must be a mapping of settings"),
    ],
)
def test_a_setting_of_a_section_within_a_section_is_named_in_full(values: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TelemetryConfig.from_profile("standard", {"diagnostics": {"rules": values}})
    assert words in str(caught.value)
    assert "(from overrides)" in str(caught.value)
