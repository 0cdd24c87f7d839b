"""The reference of environment variables is complete for OpenTelemetry, and the tests that it names exist."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from opentelemetry import environment_variables as of_the_api
from opentelemetry.sdk import environment_variables as of_the_sdk

from nissa.doctor.variables import OPENTELEMETRY, Variable, opentelemetry_names
from scripts.generate import ROOT
from scripts.variable_tests import TESTS, UNUSED
from tests.cases import for_each

_NAME = re.compile(r"""["'](OTEL_[A-Z0-9_]+)["']""")


@cache
def _tests() -> dict[Path, str]:
    return {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def expanded(variables: Iterable[Variable]) -> list[str]:
    """Return the variables that names with alternatives in braces stand for."""
    return [name for each in variables for name in each.names()]


def defined() -> set[str]:
    """Return the variables that the API, the SDK and the installed OTLP and Prometheus exporters know."""
    sdk = Path(of_the_sdk.__path__[0]).parent
    folders = [Path(of_the_api.__path__[0]), sdk, sdk.with_name("exporter")]
    return {name for folder in folders for path in folder.rglob("*.py") for name in _NAME.findall(path.read_text())}


def test_every_variable_has_one_row_or_a_reason_to_have_none() -> None:
    listed, spared = expanded(OPENTELEMETRY), set(expanded(UNUSED))
    assert len(listed) == len(set(listed))
    assert all(each.meaning.strip() for each in (*OPENTELEMETRY, *UNUSED))
    assert len(defined()) > 80
    assert set(listed) | spared == defined()
    assert not set(listed) & spared


def test_the_variables_with_tests_are_those_of_the_reference() -> None:
    assert list(TESTS) == [each.name for each in OPENTELEMETRY]


def test_every_variable_in_the_guide_is_in_the_reference() -> None:
    guide = (ROOT / "docs" / "how-to" / "exporters.md").read_text()
    named = set(re.findall(r"\bOTEL_[A-Z_]+[A-Z]\b(?![{*])", guide))
    assert len(named) > 10
    assert named <= opentelemetry_names()


@for_each("name", TESTS)
def test_the_tests_of_a_row_exist(name: str) -> None:
    assert TESTS[name]
    for test in TESTS[name]:
        (path,) = (path for path, text in _tests().items() if f"def {test}(" in text)
        assert "variables" in path.parts or "otel" in path.parts, f"{name}: {path}"
