import json
from functools import cache
from typing import Any

import pytest

from nissa.config import RESERVED_VARIABLES, TelemetryConfig, describe, load
from nissa.config.analytics import COMPUTE_MULTIPLIERS
from nissa.errors import ConfigurationError, UnknownNameError
from tests.cases import for_each


def refusal(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(environ=environ)
    return caught.value


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        (
            "NISSA_ANALYTICS__COMPUTE_MULTIPLIERS",
            '{"mine": 2}',
            "analytics.compute_multipliers",
            COMPUTE_MULTIPLIERS | {"mine": 2.0},
        ),
        ("NISSA_HISTORY_LENGTH", "33", "history_length", 33),
        ("NISSA_STRICT", "true", "strict", True),
        ("NISSA_GRADIENTS__EVERY_N_STEPS", "5", "gradients.every_n_steps", 5),
        ("NISSA_GRADIENTS__EXPLODING_THRESHOLD", "1e2", "gradients.exploding_threshold", 100.0),
        ("NISSA_GRADIENTS__PERCENTILES", "[5, 3]", "gradients.percentiles", (3.0, 5.0)),
        ("NISSA_GRADIENTS__PERCENTILES", "5, 3", "gradients.percentiles", (3.0, 5.0)),
        ("NISSA_GRADIENTS__PERCENTILES", "5", "gradients.percentiles", (5.0,)),
        ("NISSA_GRADIENTS__PERCENTILES", "[]", "gradients.percentiles", ()),
        ("NISSA_GRADIENTS__LAYERS", "all", "gradients.layers", "all"),
        ("NISSA_GRADIENTS__LAYERS", "enc.*,dec.[0-9].*", "gradients.layers", ("enc.*", "dec.[0-9].*")),
        ("NISSA_GRADIENTS__LAYERS", '["enc.*"]', "gradients.layers", ("enc.*",)),
        ("NISSA_GRADIENTS__LAYERS", "type:Linear,!re:head.*", "gradients.layers", ("type:Linear", "!re:head.*")),
        ("NISSA_GRADIENTS__LAYERS", '["re:a{1,2}"]', "gradients.layers", ("re:a{1,2}",)),
        ("NISSA_GRADIENTS__TOP_K", "7", "gradients.top_k", 7),
        ("NISSA_GRADIENTS__STATISTICS", "std,norm", "gradients.statistics", ("norm", "std")),
        ("NISSA_GRADIENTS", '{"every_n_steps": 5}', "gradients.every_n_steps", 5),
        ("NISSA_PER_CLASS__ENABLED", "on", "per_class.enabled", True),
        ("NISSA_CONSOLE__COLOR", "0", "console.color", False),
        ("NISSA_GRADIENTS__HISTOGRAM", "off", "gradients.percentiles", ()),
    ],
)
def test_a_variable_sets_its_field(variable: str, text: str, path: str, value: object) -> None:
    found: Any = load(environ={variable: text})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@cache
def _defaults() -> TelemetryConfig:
    return load(profile="custom", environ={})


@for_each("setting", describe(TelemetryConfig), ids=lambda setting: setting.path)
def test_every_setting_has_a_variable(setting: Any) -> None:
    default: Any = _defaults()
    for part in setting.path.split("."):
        default = getattr(default, part)
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(1 if default is None else default)
    text = json.dumps(default) if isinstance(default, dict) else text
    config: Any = load(profile="custom", environ={setting.variable: text})
    for part in setting.path.split("."):
        config = getattr(config, part)
    assert config == (default if default is not None else True)


def test_variables_of_one_section_add_up() -> None:
    environ = {"NISSA_GRADIENTS": '{"max_parameters": 7, "every_n_steps": 2}', "NISSA_GRADIENTS__EVERY_N_STEPS": "5"}
    gradients = load(environ=environ).gradients
    assert (gradients.max_parameters, gradients.every_n_steps, gradients.enabled) == (7, 5, True)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(environ={"NISSA_STRICT": "", "NISSA_PROFILE": "", "NISSA_CONFIG": ""}) == load(environ={})


@pytest.mark.parametrize("name", ["PATH", "NISSAN", "nissa_strict", "OTEL_SERVICE_NAME"])
def test_the_variables_of_others_are_left_alone(name: str) -> None:
    assert load(environ={name: "x"}) == load(environ={})


def test_reserved_variables_are_known() -> None:
    assert set(RESERVED_VARIABLES) == {"NISSA_PROFILE", "NISSA_CONFIG", "NISSA_RUN_ID"}
    assert load(environ={"NISSA_RUN_ID": "run-7"}) == load(environ={})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NISSA_GRADIENTS__EVERY_N_STEP", "NISSA_GRADIENTS__EVERY_N_STEPS"),
        ("NISSA_EVERY_N_STEPS", "NISSA_DIAGNOSIS__EVERY_N_STEPS or NISSA_GRADIENTS__EVERY_N_STEPS"),
        ("NISSA_GRADIENTS_EVERY_N_STEPS", "NISSA_GRADIENTS__EVERY_N_STEPS"),
        ("NISSA_PROFIL", "NISSA_PROFILE"),
        ("NISSA_RUNID", "NISSA_RUN_ID"),
        ("NISSA_gradients__enabled", "NISSA_GRADIENTS__ENABLED"),
        ("NISSA_GRADIENT__LAYERS", "NISSA_GRADIENTS__LAYERS"),
    ],
)
def test_an_unknown_variable_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    error = refusal({name: "1"})
    assert isinstance(error, UnknownNameError)
    assert name in str(error)
    assert f"Did you mean {meant}" in str(error)


def test_several_unknown_variables_have_a_line_each() -> None:
    lines = str(refusal({"NISSA_STRIKT": "1", "NISSA_QUEUE_SIZE": "1"})).splitlines()
    assert len(lines) == 3
    assert "NISSA_LIMITS__QUEUE_SIZE" in lines[1]
    assert "Did you mean NISSA_STRICT " in lines[2]


def test_a_bad_value_names_its_variable_and_the_range() -> None:
    assert str(refusal({"NISSA_LIMITS__QUEUE_SIZE": "-1"})) == (
        "limits.queue_size must be a whole number from 1 to 10,000,000, not '-1' "
        "(from the environment: NISSA_LIMITS__QUEUE_SIZE)."
    )


def test_a_section_that_is_no_json_says_how_to_set_one_field() -> None:
    message = str(refusal({"NISSA_GRADIENTS": "on"}))
    assert "NISSA_GRADIENTS must be a JSON object, not 'on'" in message
    assert "use NISSA_GRADIENTS__<FIELD>" in message


def test_an_unknown_key_inside_a_json_section_is_named_in_full() -> None:
    message = str(refusal({"NISSA_GRADIENTS": '{"layerz": 1}'}))
    assert "'gradients.layerz'" in message
    assert "Did you mean 'gradients.layers'" in message
    assert "NISSA_GRADIENTS" in message
