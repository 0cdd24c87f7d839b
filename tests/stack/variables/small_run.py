"""A small training run in a process of its own, which is told by variables where its telemetry goes."""

import json
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.variables.own_collector import OwnCollector
from tests.support import finish, script

LOSSES = [0.5, 0.25, 0.125, 0.0625]
"""What the run says its losses are, step by step."""
SEEDS = 2
"""Seeds that the run brings up."""
SPANS = {"epoch", "validation", "step", "seed"}
"""Some of the spans that it sends."""

_BODY = """
import json, sys, time
import torch
import nissa

{before}
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with nissa.start("diagnostic", run_id="run-1") as run:
    run.watch(model, optimizer)
    with run.epoch(0):
        for loss in {losses}:
            optimizer.zero_grad()
            model(torch.ones(4, 3)).sum().backward()
            run.log_loss(loss)
            optimizer.step()
        run.validate(loss=0.5, accuracy=0.75)
    for number in range({seeds}):
        seed = run.germinate(f"seed-{{number}}", blueprint="conv", slot="r0c0", parameters=10)
        seed.advance("training")
        seed.gate(nissa.GateResult(gate="G2", passed=True, score=0.5))
        seed.cull(reason="it is only a test", improvement=0.0)
{within}
{after}
print("\\n" + json.dumps({{"destination": run.destination}}))
"""


@dataclass(frozen=True)
class Done:
    """What became of a run.

    Args:
        destination: Where the run says that its telemetry went.
        out: What else it printed.
        err: What it and its libraries complained about.
    """

    destination: str
    out: str
    err: str


Run = Callable[..., Done]
Collecting = Callable[[], AbstractContextManager[OwnCollector]]


def run_script(code: str, folder: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a script in a folder, with variables besides those of the caller; return status, output and errors."""
    # Where one of these is set, the HTTP exporter does not look at certificates of its own.
    with pytest.MonkeyPatch.context() as patched:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patched.delenv(name, raising=False)
        process = script(code, folder=folder, environ=environ)
    return finish(process)


def body(*, before: str = "", within: str = "", after: str = "") -> str:
    """Return the run's script, with code before it, before its end, and after it."""
    inner = textwrap.indent(textwrap.dedent(within), "    ")
    return _BODY.format(
        before=textwrap.dedent(before), within=inner, after=textwrap.dedent(after), losses=LOSSES, seeds=SEEDS
    )


def train(folder: Path, environ: Mapping[str, str], **code: str) -> Done:
    """Run it to its end, which must be a good one."""
    folder.mkdir(exist_ok=True)
    status, out, err = run_script(body(**code), folder, {"NISSA_CONSOLE__ENABLED": "false", **environ})
    assert status == 0, err
    printed = out.strip().splitlines()
    # An exporter that prints may do so once more at the exit of the interpreter.
    (last,) = [line for line in printed if line.startswith('{"destination"')]
    printed.remove(last)
    said: dict[str, Any] = json.loads(last)
    return Done(said["destination"], "\n".join(printed), err)
