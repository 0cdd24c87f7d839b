"""Settings without an end, from files, variables and arguments: one error that says what to do."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nissa
from nissa import ConfigurationError
from nissa.config import load
from nissa.config.files import parse
from tests import hostile
from tests.cases import for_each

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = [
    "gradients: &g {layers: *g}",
    "gradients: &g\n  enabled: true\n  more: *g",
    "&all {gradients: *all}",
    "gradients: &g [*g]",
    "a: &a {b: &b {c: *a, d: *b}}",
    "profile: " + "[" * 5_000,
    "profile: " + "[" * 5_000 + "]" * 5_000,
    "{a: " * 5_000 + "1" + "}" * 5_000,
    "- " * 5_000 + "a",
    "[" * 900 + "]" * 900,
    "a: " + "[" * 30 + "]" * 30,
    LAUGHS,
    "gradients: {? [a, b] : 1}",
    "gradients: {? {a: 1} : 1}",
    "gradients: 2024-13-01",
    "gradients: !!python/object/apply:os.system [ls]",
    "gradients: \x00",
    "gradients: \x1b[2J",
    "gradients: \ud800",
    "%YAML 9.9\n---\na: 1",
    "--- a\n--- b",
    "a: *nothing",
    "9" * 5_000,
    "0x" + "f" * 5_000,
    "1:" * 2_000 + "1",
]


@for_each("text", TEXTS, ids=lambda text: text[:40])
def test_a_text_without_an_end_is_an_error_that_names_its_source(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^nissa\.yaml") as raised:
        parse(text, "nissa.yaml")
    assert len(str(raised.value)) < 1_000


def test_a_run_is_not_started_with_such_a_file(tmp_path: Path) -> None:
    path = tmp_path / "nissa.yaml"
    for text in ("gradients: &g {layers: *g}", "profile: " + "[" * 5_000):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"nissa\.yaml .*(nested|valid YAML)"):
            nissa.start(config=path)


@given(st.text("ab:[]{}&*?|>-,\n \"'!%#<", max_size=40))
@settings(max_examples=80)
def test_any_text_is_settings_or_an_error(text: str) -> None:
    try:
        parse(text, "nissa.yaml")
    except ConfigurationError as error:
        assert str(error).startswith("nissa.yaml")  # noqa: PT017 - either is right


def test_settings_of_the_call_that_contain_themselves_are_an_error() -> None:
    endless = hostile.itself(2)
    for overrides in (endless, {"gradients": endless}, {"gradients": {"layers": hostile.deep()}}):
        with pytest.raises(ConfigurationError, match="contains itself"):
            load(overrides=overrides)


@for_each(
    "name, text",
    [
        ("NISSA_GRADIENTS", '{"layers": ' + "[" * 50_000),
        ("NISSA_GRADIENTS", "[" * 50_000),
        ("NISSA_GRADIENTS__LAYERS", "[" * 50_000),
        ("NISSA_GRADIENTS__LAYERS", "[" * 50_000 + "]" * 50_000),
        ("NISSA_GRADIENTS__PERCENTILES", "9" * 50_000),
        ("NISSA_GRADIENTS__EVERY_N_STEPS", "9" * 50_000),
        ("NISSA_GRADIENTS__EVERY_N_STEPS", "\udcff"),
        ("NISSA_PROFILE", "\x1b[2J"),
        ("NISSA_CONFIG", "x" * 5_000),
        ("NISSA_CONFIG", "a\0b"),
        ("NISSA_FILES__DIRECTORY", "a\0b"),
    ],
)
def test_a_variable_without_an_end_is_an_error(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(environ={name: text})
    assert len(str(raised.value)) < 12_000


@for_each("directory", ["a\0b", hostile.Raises(), 5, ["a"]], ids=lambda directory: type(directory).__name__)
def test_a_folder_that_cannot_be_one_is_an_error(directory: Any) -> None:
    with pytest.raises(ConfigurationError, match="directory"):
        load(overrides={"files": {"directory": directory}})


def test_a_path_with_nul_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(config="a\0b")
    with pytest.raises(ConfigurationError, match="Cannot write events"):
        nissa.FileBackend("a\0b")
