"""Makes many seeds and events, or many steps, and notes what the process occupies meanwhile.

Arguments: ``seeds`` with the numbers of lives, environments, events and parameters, or ``steps`` with a number of steps.
The output is one JSON object.
"""

import json
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

import nissa
from nissa import Run, Stage, TelemetryEvent

_LIFECYCLE_EVENTS = 3
"""Events of each seed: its beginning, its training and its end."""
_PARTS = 10
_WAIT = 250.0


def occupied(**more: Any) -> dict[str, Any]:
    """Return the bytes of memory, the threads and the open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * resource.getpagesize(),
        "threads": threading.active_count(),
        "files": len([*Path("/proc/self/fd").iterdir()]),
        **more,
    }


def start(**settings: Any) -> Run:
    return nissa.start("standard", console__enabled=False, limits__exit_timeout_seconds=_WAIT, **settings)


def seeds(lives: int, environments: int, events: int, parameters: int) -> dict[str, Any]:
    """Let seeds live in all environments, a few events each, beside a model of many parameters."""
    own = events // lives - _LIFECYCLE_EVENTS
    model = nn.ParameterList(torch.full((2,), 0.5) for _ in range(parameters))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    traces, noted = [], []
    with start(gradients__max_parameters=parameters) as run:
        run.watch(model, optimizer)
        for number in range(lives // environments):
            step(model, optimizer)
            traces += [live(run, env, number, own) for env in range(environments)]
            assert run.hub.flush(_WAIT)
            noted.append(occupied())
        flushed = run.flush(_WAIT)
        healthy = run.hub.healthy
    return {"traces": traces, "noted": noted, "flushed": flushed, "healthy": healthy, "own": own}


def live(run: Run, env: int, number: int, events: int) -> str:
    seed = run.environment(env).germinate(f"s{number}", blueprint=f"b{number % 7}", slot="r0c0")
    seed.advance(Stage.TRAINING)
    for index in range(events):
        data = {"index": index, "reward": 0.5, "action": "wait"}
        run.hub.emit(TelemetryEvent("POLICY_DECISION", seed_id=seed.seed_id, env_id=str(env), data=data))
    seed.cull(reason="late")
    return seed.trace_id


def step(model: nn.ParameterList, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss: Any = torch.stack([each.square().sum() for each in model]).sum()
    loss.backward()
    optimizer.step()


def steps(count: int) -> dict[str, Any]:
    """Train a tiny network for many steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(4, 4)
    with start() as run:
        run.watch(model, optimizer)
        noted = [occupied(seconds=median(timed(model, optimizer, batch, count // _PARTS))) for _ in range(_PARTS)]
        flushed = run.flush(_WAIT)
        healthy = run.hub.healthy
    return {"noted": noted, "flushed": flushed, "healthy": healthy}


def timed(model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor, count: int) -> Iterator[float]:
    for _ in range(count):
        began = perf_counter()
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        yield perf_counter() - began


if __name__ == "__main__":
    torch.set_num_threads(1)
    load, *numbers = sys.argv[1:]
    found = seeds(*map(int, numbers)) if load == "seeds" else steps(*map(int, numbers))
    sys.stdout.write(json.dumps(found))
