"""Commands, variables and public names: each is documented, and what is documented exists."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import nissa
from nissa.cli import app
from nissa.config import RESERVED_VARIABLES
from nissa.distributed import rank
from nissa.doctor import variables
from scripts.generate import ROOT
from scripts.reference_api import public_members
from scripts.reference_cli import commands, options

COMMANDS: dict[str, Any] = {name.removeprefix("nissa "): each for name, each in commands(typer.main.get_command(app))}
SOURCE = Path(nissa.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLES = {"OURS": variables.OURS, "LAUNCHERS": variables.LAUNCHERS, "OTHERS": variables.OTHERS}

RUN = "run"
"""The command that runs a script."""


def names(table: tuple[variables.Variable, ...]) -> set[str]:
    return {name for each in table for name in each.names()}


def spelled() -> dict[str, set[str]]:
    """Return the texts that look like variables, by file of the source."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        if path != Path(variables.__file__):
            texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            found[str(path)] = {
                text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z][A-Z0-9_]+", text)
            }
    return found


def typed() -> list[tuple[Path, list[str]]]:
    """Return the commands that documents tell people to type, in words."""
    found = []
    for page in PAGES:
        for line in re.findall(r"(?:^|`)((?:[A-Z_]+=\S+ )*nissa [a-z][^`\n#]*)", page.read_text(), flags=re.MULTILINE):
            words = [word for word in shlex.split(line) if "=" not in word or word.startswith("--")]
            found.append((page, words))
    return found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_what_it_does_with_examples_and_exit_codes(name: str) -> None:
    command = COMMANDS[name]
    assert len(command.help) > 10
    assert f"nissa {name}" in command.epilog
    assert "Exit codes:" in command.epilog
    told = list(options(command))
    if name != RUN:  # what it prints is the script's
        assert "--json" in [option for each in told for option in each.opts]
    for each in told:
        assert each.help, each.name
        assert getattr(each, "is_flag", False) or each.metavar, f"{each.name} says not what it takes"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_is_in_the_reference(name: str) -> None:
    _, _, section = (ROOT / "docs" / "reference" / "cli.md").read_text().partition(f"## nissa {name}\n")
    section = section.partition("\n## ")[0]
    for each in options(COMMANDS[name]):
        for option in [each.metavar] if each.param_type_name == "argument" else each.opts:
            assert f"`{option}" in section, option


def test_every_command_and_option_that_is_typed_somewhere_exists() -> None:
    lines = typed()
    assert len(lines) > 10
    for page, words in lines:
        assert words[1] in COMMANDS, f"{page.name}: {' '.join(words)}"
        known = {option for each in options(COMMANDS[words[1]]) for option in each.opts} | {"--help"}
        # What follows the name of a script belongs to it.
        script = next((place for place, word in enumerate(words) if word.endswith(".py")), len(words))
        own = words[:script] if words[1] == RUN else words
        given = {word.partition("=")[0] for word in own if word.startswith("--")} - {"--nproc-per-node"}
        assert given <= known, f"{page.name}: {' '.join(words)}"


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_variable_in_the_reference_is_read_by_the_code(table: str) -> None:
    read = set().union(*spelled().values())
    indirectly = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}  # by the HTTP exporter's library; the doctor looks at them
    assert names(TABLES[table]) <= read | indirectly


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    known = names(variables.OURS) | names(variables.LAUNCHERS) | variables.opentelemetry_names()
    for path, texts in spelled().items():
        for text in texts:
            if text.startswith(("OTEL_", "NISSA_", "SLURM_", "OMPI_")) and not text.endswith("_"):
                assert text in known, f"{path} reads {text}"
    assert {name for each in rank._LAUNCHERS for name in each} <= known
    assert names(variables.OURS) == set(RESERVED_VARIABLES)


def test_every_public_name_is_in_the_reference_and_nothing_else_is() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    assert re.findall(r"^## (\w+)$", page, flags=re.MULTILINE) == nissa.__all__
    members = {
        f"{name}.{member}"
        for name in nissa.__all__
        if isinstance(kind := getattr(nissa, name), type) and not issubclass(kind, Exception)
        for member, _ in public_members(kind)
    }
    told = set(re.findall(r"^### ([\w.]+)$", page, flags=re.MULTILINE))
    assert told
    assert told <= members
    assert {name for name in members if name.startswith(("Run.", "Environment.", "Seed.", "NissaHub."))} <= told


def test_every_function_of_the_package_that_a_document_calls_is_public() -> None:
    called = {(page.name, name) for page in PAGES for name in re.findall(r"\bnissa\.([A-Za-z_]+)\(", page.read_text())}
    assert ("README.md", "start") in called
    for page, name in sorted(called):
        assert name in nissa.__all__, f"{page} calls nissa.{name}()"
