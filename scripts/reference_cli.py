"""Reference page of the command line, generated from the commands."""

from collections.abc import Iterator
from typing import Any

import typer

from nissa.cli import app


def cli() -> str:
    """Return the page."""
    root: Any = typer.main.get_command(app)
    head = (
        "# Command line\n\n"
        "Every command has `--help`, and `--json` for scripts. Exit codes: 0 fine, 1 something was found that needs "
        "attention, 2 it was called or configured wrongly.\n"
    )
    return head + "".join(_command(name, command) for name, command in commands(root))


def commands(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command with its command line."""
    for name, command in sorted(root.commands.items()):
        yield f"{root.name} {name}", command


def options(command: Any) -> Iterator[Any]:
    """Yield the options and arguments of a command, except ``--help``."""
    return (each for each in command.params if each.name != "help")


def _command(name: str, command: Any) -> str:
    # Remove the marks with which click keeps text unwrapped.
    ending = command.epilog.partition("Exit codes:")[0].replace("\b", "").strip()
    examples = "\n".join(line.removeprefix("  ") for line in ending.splitlines()[1:])
    rows = "".join(f"| {_spelled(each)} | {_default(each)} | {each.help} |\n" for each in options(command))
    table = f"\n| option | default | meaning |\n| --- | --- | --- |\n{rows}" if rows else ""
    return f"\n## {name}\n\n{command.help.strip()}\n{table}\n```sh\n{_comments(examples)}\n```\n"


def _spelled(option: Any) -> str:
    if option.param_type_name == "argument":
        return f"`{option.metavar}`"
    return "`" + ", ".join(option.opts) + ("" if option.is_flag else f" {option.metavar}") + "`"


def _default(option: Any) -> str:
    return "" if option.default in (None, False, ()) or callable(option.default) else f"`{option.default}`"


def _comments(examples: str) -> str:
    """Move the indented description of an example to a comment above it."""
    lines = examples.splitlines()
    return "\n\n".join(f"# {does.strip()}\n{command}" for command, does in zip(lines[::2], lines[1::2], strict=True))
