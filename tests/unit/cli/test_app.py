"""The command line as a whole: help, exit codes, JSON, and how quick it is."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner, Result

from nissa.cli import app

COMMANDS = ("demo", "doctor", "profiles", "report", "version")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'nissa'; from nissa.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command_with_examples_and_exit_codes() -> None:
    said = run("--help")
    assert said.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in said.output
    assert "nissa demo\n" in said.output
    assert "  2  invalid arguments or configuration" in said.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str) -> None:
    said = run(name, "--help")
    assert said.exit_code == 0
    assert "Examples:\n" in said.output
    assert "Exit codes:\n" in said.output
    assert "--json" in said.output


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=["all", *COMMANDS])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom nissa.cli import app\n"
        f"try:\n    app({[*arguments, '--help']!r})\nexcept SystemExit:\n    pass\n"
        "print('loaded', *sorted({'torch', 'numpy', 'yaml', 'grpc', 'opentelemetry'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["loaded"]


@pytest.mark.parametrize("arguments", [("version",), ("--version",)], ids=["command", "option"])
def test_the_version_is_that_of_the_installed_package(arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert (said.exit_code, said.output) == (0, f"nissa {version('nissa')}\n")


def test_the_version_as_json() -> None:
    assert json.loads(run("version", "--json").output) == {"nissa": version("nissa")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("doctor", "--nonsense"),
        ("profiles", "--profile", "nonsense"),
        ("doctor", "--protocol", "grpc"),
        ("report", "nowhere"),
    ],
    ids=["command", "option", "value", "combination", "folder"],
)
def test_misuse_is_two_and_a_message_and_no_traceback(arguments: tuple[str, ...]) -> None:
    done = process(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_command_the_help_is_shown() -> None:
    done = process()
    assert done.returncode == 2
    assert "Usage: nissa" in done.stdout + done.stderr
