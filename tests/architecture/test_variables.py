"""The guide about exporters leaves no variable out, and the tests that it names exist."""

import re
from functools import cache
from itertools import product
from pathlib import Path

from opentelemetry import environment_variables as of_the_api
from opentelemetry.sdk import environment_variables as of_the_sdk

from scripts.generate import ROOT
from tests.cases import for_each

PAGE = (ROOT / "docs" / "how-to" / "exporters.md").read_text()
ROWS = re.findall(r"^\| `(OTEL_[^`]+)` \|(.*)\|(.*)\|$", PAGE, re.MULTILINE)
_NAME = re.compile(r"""["'](OTEL_[A-Z0-9_]+)["']""")


@cache
def _tests() -> dict[Path, str]:
    return {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def expanded(name: str) -> list[str]:
    """Return the variables that a name with alternatives in braces stands for."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(choice) for choice in product(*parts)]


def defined() -> set[str]:
    """Return the variables that the API, the SDK and the installed OTLP and Prometheus exporters know."""
    sdk = Path(of_the_sdk.__path__[0]).parent
    folders = [Path(of_the_api.__path__[0]), sdk, sdk.with_name("exporter")]
    return {name for folder in folders for path in folder.rglob("*.py") for name in _NAME.findall(path.read_text())}


def test_every_variable_has_one_row_or_a_reason_to_have_none() -> None:
    listed = [variable for name, _, _ in ROWS for variable in expanded(name)]
    assert len(listed) == len(set(listed))
    (excused,) = re.findall(r"^Not about this: .*?\n\n?\Z", PAGE, re.MULTILINE | re.DOTALL)
    spared = set(re.findall(r"`(OTEL_[A-Z_]+)`", excused))
    assert len(defined()) > 80
    assert set(listed) | spared == defined()
    assert not set(listed) & spared


@for_each("row", ROWS, ids=lambda row: row[0])
def test_the_tests_of_a_row_exist(row: tuple[str, str, str]) -> None:
    name, says, shown = row
    tests = re.findall(r"`(test_\w+)`", shown)
    assert says.strip()
    assert tests
    for test in tests:
        (path,) = (path for path, text in _tests().items() if f"def {test}(" in text)
        assert "variables" in path.parts or "otel" in path.parts, f"{name}: {path}"
