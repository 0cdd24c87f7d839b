"""Command ``nissa run``: a Python script or module with telemetry, unchanged."""

import os
import subprocess
import sys
from typing import Annotated, Final, NoReturn

import typer

from nissa.errors import ConfigurationError

EXAMPLES: Final = (
    ("nissa run train.py --lr 0.1", "run a script; everything after its name belongs to it"),
    ("nissa run --profile diagnostic -m package.train", "run a module, and measure more"),
    ("nissa run -m torch.distributed.run --nproc-per-node 2 train.py", "run a script on two ranks, as torchrun does"),
)
EXIT_CODES: Final = (
    "\b\nExit codes:\n  those of the script\n  2  invalid arguments or configuration; the script was not run"
)
CONTEXT: Final = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Parser settings with which everything after the first argument is passed on."""


def run(
    *,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="SCRIPT [ARGS]...", help="The script and its arguments.")
    ] = None,
    module: Annotated[
        str | None, typer.Option("-m", metavar="MODULE", help="Run a module instead of a script.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Profile of settings; see nissa profiles.")
    ] = None,
) -> None:
    """Run a Python script with telemetry, without a change to it.

    The interpreter that runs nissa runs the script, as ``python SCRIPT`` does: arguments, imports, output, tracebacks and
    the exit status are the same. Processes that it starts are observed as well. Each optimizer is measured from its first
    step on. NISSA_* variables set everything else, and OTEL_* variables the destination.
    """
    from nissa.config.loading import load  # noqa: PLC0415 - help stays quick without it
    from nissa.integrations.zero_code import instrumented_environment  # noqa: PLC0415

    command = [*(["-m", module] if module is not None else []), *(arguments or [])]
    if not command:
        raise ConfigurationError("nissa run needs a script, or -m and a module: nissa run train.py")
    load(profile)  # a setting that cannot be used is an error before the script begins
    environ = instrumented_environment(os.environ)
    if profile is not None:
        environ["NISSA_PROFILE"] = profile
    _become([sys.executable, *command], environ)


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Replace this process, so that signals and the exit status are those of the script."""
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(command[0], command, environ)  # noqa: S606 - this is what the command is for
    sys.exit(subprocess.call(command, env=environ))  # noqa: S603 - as above
