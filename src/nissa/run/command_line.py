"""Command line of the process without credentials."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from nissa.otel.otlp.redaction import Redactor, secrets_of_headers, user_info_of_url
from nissa.run.run_config import HIDDEN, is_secret, redacted

MOST_ARGUMENTS: Final = 200
"""Maximum number of arguments; a launcher may pass a list of files."""

_LEFT_OUT: Final = "…"
_FOLDER: Final = "PWD"
"""Variable of the shell for the working directory, which otherwise is the abbreviation of a password."""
_SHORTEST: Final = 6
"""Minimum length of a variable's value that is a credential by its name; ``true`` would hide parts of other words."""


def command_line(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arguments of a process with credentials replaced by ``***``.

    Hidden are values of options that are named like a credential, user info and queries of URLs, known kinds of tokens,
    and values of environment variables that are named like one, wherever they occur.

    Args:
        arguments: Interpreter, its options, script and arguments, such as `sys.orig_argv`.
        environ: Environment variables of the process.

    Example:
        >>> command_line(["python", "train.py", "--hf-token", "abc", "--lr=0.1", "db.password=x"], {})
        ('python', 'train.py', '--hf-token', '***', '--lr=0.1', 'db.password=***')
    """
    redactor = Redactor(_secrets(environ))
    shown = [redactor.clean(text) for text in _hidden([redactor.hide(each) for each in arguments])]
    rest = (_LEFT_OUT,) if len(shown) > MOST_ARGUMENTS else ()
    return (*shown[:MOST_ARGUMENTS], *rest)


def own_command_line(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line of this process, as the shell passed it to the interpreter."""
    return command_line(sys.orig_argv or sys.argv, environ)


def _hidden(arguments: Sequence[str]) -> Iterator[str]:
    """Yield arguments with the values hidden that belong to a name like ``--api-key``."""
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if option and not argument.startswith("--") and is_secret(option, _number(argument)):
            yield HIDDEN
        elif equals and value and is_secret(name, _number(value)):
            yield f"{name}={HIDDEN}"
        else:
            yield redacted(argument)
        option = argument if argument.startswith("-") and not equals else ""


def _number(text: str) -> str | float:
    """Return text as a number if it is one: ``--max-token 512`` is a hyperparameter."""
    try:
        return float(text)
    except ValueError:
        return text


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of environment variables that are credentials by their names, or contain one."""
    for name, value in environ.items():
        if name.startswith("OTEL_") and name.endswith("_HEADERS"):
            yield from secrets_of_headers(entry.partition("=")[2].strip() for entry in value.split(","))
        elif name != _FOLDER and is_secret(name.lower(), value) and len(value) >= _SHORTEST:
            yield value
        elif "://" in value:
            yield from user_info_of_url(value)
