"""The process that `nursery.Nursery` starts: it imports PyTorch once and becomes, forked, whatever it is told to."""

import json
import os
import runpy
import sys
from typing import Any

import torch


def main() -> None:
    """Run scripts, told one a line, and answer each with its exit status."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # imports what a first optimizer needs
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _become(told)
            return
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


def _become(told: dict[str, Any]) -> None:
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environ"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(os.devnull if name == "stdin" else name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = [told["script"]]
    runpy.run_path(told["script"], run_name="__main__")


if __name__ == "__main__":
    main()
