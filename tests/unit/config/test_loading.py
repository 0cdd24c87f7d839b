import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nissa.config import TelemetryConfig, load
from nissa.errors import ConfigurationError, UnknownNameError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("profile: research\ngradients:\n  every_n_steps: 22\n  max_parameters: 22\n  layers: [from.file]\n")
    return path


ENVIRON = {"NISSA_GRADIENTS__EVERY_N_STEPS": "33", "NISSA_GRADIENTS__MAX_PARAMETERS": "33"}
OVERRIDES = {"gradients": {"every_n_steps": 44}}


@pytest.mark.parametrize(
    ("with_file", "environ", "overrides", "expected"),
    [
        (False, {}, {}, 1),
        (True, {}, {}, 22),
        (False, ENVIRON, {}, 33),
        (True, ENVIRON, {}, 33),
        (False, {}, OVERRIDES, 44),
        (True, {}, OVERRIDES, 44),
        (False, ENVIRON, OVERRIDES, 44),
        (True, ENVIRON, OVERRIDES, 44),
    ],
)
def test_a_layer_wins_over_those_below_it(
    file: Path, with_file: bool, environ: dict[str, str], overrides: dict[str, Any], expected: int
) -> None:
    config = load("diagnostic", file if with_file else None, overrides, environ)
    assert config.gradients.every_n_steps == expected


def test_each_layer_keeps_what_those_above_it_do_not_name(file: Path) -> None:
    config = load("diagnostic", file, OVERRIDES, ENVIRON)
    assert config.gradients.every_n_steps == 44  # argument
    assert config.gradients.max_parameters == 33  # environment
    assert config.gradients.layers == ("from.file",)
    assert config.gradients.percentiles == (1.0, 25.0, 50.0, 75.0, 99.0)  # preset
    assert config.gradients.statistics == TelemetryConfig().gradients.statistics
    assert config.profile_name == "diagnostic"


def test_the_profile_comes_from_argument_environment_file_or_default(file: Path) -> None:
    named = {"NISSA_PROFILE": "minimal"}
    assert load("diagnostic", file, environ=named).profile_name == "diagnostic"
    assert load(None, file, environ=named).profile_name == "minimal"
    assert load(None, file, environ={}).profile_name == "research"
    assert load(environ={}) == TelemetryConfig.standard()


def test_a_file_that_names_no_profile_starts_from_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("history_length: 12")
    assert load(config=path, environ={}) == TelemetryConfig.from_profile("standard", {"history_length": 12})


def test_the_file_comes_from_argument_or_environment(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("history_length: 12")
    assert load(environ={"NISSA_CONFIG": str(file)}).gradients.every_n_steps == 22
    assert load(config=str(other), environ={"NISSA_CONFIG": str(file)}).gradients.every_n_steps == 10


def test_the_process_environment_is_read_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NISSA_HISTORY_LENGTH", "33")
    assert load().history_length == 33
    assert load(environ={}).history_length == 10


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NISSA_HISTORY_LENGTH", "33")
    assert load(environ={"NISSA_STRICT": "1"}).history_length == 10


def test_a_file_that_the_environment_names_wrongly_is_traced_to_its_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"/no/such\.yaml \(from NISSA_CONFIG\) does not exist"):
        load(environ={"NISSA_CONFIG": "/no/such.yaml"})


def test_a_profile_that_the_environment_names_wrongly_is_traced_to_its_variable() -> None:
    with pytest.raises(UnknownNameError, match=r"from NISSA_PROFILE.*Did you mean 'research'"):
        load(environ={"NISSA_PROFILE": "reserch"})


def test_percentiles_of_the_file_and_a_histogram_turned_off_by_argument_need_a_decision(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("gradients: {percentiles: [5]}")
    with pytest.raises(ConfigurationError, match=r"percentiles to \[\]"):
        load(config=path, overrides={"gradients.histogram": False}, environ={})


def test_errors_from_several_layers_name_each_its_own(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(config=file, overrides={"history_length": 1}, environ={"NISSA_GRADIENTS__MAX_PARAMETERS": "0"})
    lines = str(caught.value).splitlines()
    assert "history_length" in lines[1]
    assert "(from overrides)" in lines[1]
    assert "gradients.max_parameters" in lines[2]
    assert "NISSA_GRADIENTS__MAX_PARAMETERS" in lines[2]


def test_profiles_load_neither_torch_nor_opentelemetry() -> None:
    script = "import sys, nissa.config; print(sorted({'torch', 'opentelemetry', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
