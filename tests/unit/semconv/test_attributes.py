"""Attribute keys: each once, each explained."""

import ast
import re
from pathlib import Path

import pytest

from nissa.semconv import attributes, spans

MODULES = (attributes, spans)


def constants(module: object) -> dict[str, tuple[str, str]]:
    """Return each constant's value and the docstring below it."""
    assert isinstance(module.__dict__["__file__"], str)
    body = ast.parse(Path(module.__dict__["__file__"]).read_text()).body
    found: dict[str, tuple[str, str]] = {}
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            said = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
            assert isinstance(statement.value, ast.Constant)
            found[statement.target.id] = (str(statement.value.value), said)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_constant_is_explained_in_a_sentence(module: object) -> None:
    found = constants(module)
    assert found
    for name, (_, said) in found.items():
        assert said.endswith((".", "``")), name


@pytest.mark.parametrize("module", MODULES)
def test_no_two_constants_are_the_same(module: object) -> None:
    values = [value for value, _ in constants(module).values()]
    assert len(values) == len(set(values))


def test_every_public_name_is_such_a_constant() -> None:
    public = {name for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)}
    assert public == set(constants(attributes))


OF_OPENTELEMETRY = {
    "process.command_args", "process.pid", "process.working_directory", "process.runtime.name", "process.runtime.version",
    "host.name", "host.arch", "host.cpu.model.name", "os.type", "os.version", "vcs.ref.head.revision", "vcs.ref.head.name",
}  # fmt: skip
"""Keys of OpenTelemetry's semantic conventions, spelled out: all others have a prefix of ours."""


def test_keys_are_lower_case_dotted_and_carry_a_prefix_of_ours_or_of_nemo_lens() -> None:
    values = {value for value, _ in constants(attributes).values()}
    assert values >= OF_OPENTELEMETRY
    for value in values - OF_OPENTELEMETRY:
        assert re.fullmatch(r"(nissa|dl)(\.[a-z][a-z_]*)+", value), value
