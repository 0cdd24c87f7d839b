"""Cost of contracts: CPU time that they add to the training thread, as a share of a step of about 50 ms.

``python -m benchmarks.contracts`` writes ``benchmarks/results/contracts.csv``. A network of 200 parameters is trained in pairs of
runs, with contracts and without. The CPU time within Nissa's hooks is added up in both; its difference is what contracts add. The
step of about 50 ms that it is compared with is one of the same network with more samples, measured between the pairs.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import thread_time
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import nissa
from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval
from nissa.gradients import forward_probe
from nissa.gradients.forward_probe import ForwardProbe
from nissa.gradients.program_audit import observed
from nissa.gradients.watch import Watch

FIELDS: Final = (
    "phase",
    "steps",
    "observed",
    "added_us",
    "added_us_low",
    "added_us_high",
    "step_ms",
    "share_percent",
    "share_percent_low",
    "share_percent_high",
    *COLUMNS,
)
PHASES: Final = {"first": (0, 200), "later": (200, 600)}
"""Steps of each phase: in the first, contracts look more often."""

GOAL_PERCENT: Final = 1.0
_BLOCKS, _WIDTH, _CLASSES = 50, 32, 10
_STEP_MS = 50.0
_CLOSE, _ATTEMPTS = 1.1, 12


def _network() -> nn.Sequential:
    """Return a network of 200 parameters with normalisation and dropout."""
    blocks = [
        nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.LayerNorm(_WIDTH), nn.ReLU(), nn.Dropout(0.1))
        for _ in range(_BLOCKS - 1)
    ]
    return nn.Sequential(*blocks, nn.Linear(_WIDTH, _CLASSES), nn.LayerNorm(_CLASSES))


class _Hooks:
    """CPU time within the hooks of Nissa."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return call(*args, **kwargs)
            self._inside, began = True, thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += thread_time() - began
                self._inside = False

        return wrapped

    @contextmanager
    def measured(self) -> Iterator[None]:
        with ExitStack() as patches:
            for owner, name in (
                (Watch, "_before"),
                (Watch, "_after"),
                (forward_probe._Hook, "__call__"),  # noqa: SLF001 - what is measured
                (ForwardProbe, "_output_gradient"),
            ):
                patches.enter_context(patch.object(owner, name, self.timed(getattr(owner, name))))
            yield


class Training:
    """Training whose steps are timed on the CPU of its thread."""

    def __init__(self, samples: int) -> None:
        torch.manual_seed(0)
        self.model = _network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3)
        self._x, self._y = torch.randn(samples, _WIDTH), torch.randint(0, _CLASSES, (samples,))

    def steps(self, number: int) -> float:
        """Return the CPU seconds of some steps."""
        began = thread_time()
        for _ in range(number):
            self.optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(self.model(self._x), self._y))
            self.optimizer.step()
        return thread_time() - began


def measure(*, contracts: bool) -> dict[str, float]:
    """Return the CPU microseconds per step within hooks, for each phase."""
    training, hooks, found = Training(4), _Hooks(), {}
    with hooks.measured(), nissa.start("minimal", console__enabled=False, diagnostics__contracts=contracts) as run:
        run.watch(training.model, training.optimizer)
        for phase, (start, end) in PHASES.items():
            before = hooks.seconds
            training.steps(end - start)
            found[phase] = (hooks.seconds - before) * 1e6 / (end - start)
    return found


def step_of(milliseconds: float) -> float:
    """Return the CPU milliseconds of a step without Nissa that takes at least a given time, and little more."""
    samples, found = 1024, math.inf
    for _ in range(_ATTEMPTS):
        training = Training(samples)
        training.steps(2)
        took = training.steps(5) / 5 * 1e3
        if milliseconds <= took:
            found = min(found, took)
        if milliseconds <= took <= _CLOSE * milliseconds:
            break
        samples = max(64, int(samples * min(4.0, (1 + _CLOSE) / 2 * milliseconds / took)))
    return found


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine, added = facts(1), {phase: list[float]() for phase in PHASES}
    steps: list[float] = []
    with patch.dict(os.environ, {"OTEL_SDK_DISABLED": "true"}):
        measure(contracts=True)
        for number in range(arguments.rounds):
            order = (True, False) if number % 2 else (False, True)
            pair = {contracts: measure(contracts=contracts) for contracts in order}
            for phase in PHASES:
                added[phase].append(pair[True][phase] - pair[False][phase])
            steps.append(step_of(_STEP_MS))
    step = median(steps).value
    rows = []
    for phase, (start, end) in PHASES.items():
        shares = [each / step / 10 for each, step in zip(added[phase], steps, strict=True)]
        row = {
            "phase": phase,
            "steps": f"{start}-{end}",
            "observed": sum(map(observed, range(start, end))),
            "step_ms": f"{step:.1f}",
            **interval("added_us", median(added[phase]), ".1f"),
            **interval("share_percent", median(shares), ".3f"),
            **machine,
        }
        rows.append(row)
        print(
            f"{phase:<6} {row['added_us']} us a step, {row['share_percent']} % of {row['step_ms']} ms (goal {GOAL_PERCENT:g} %)"
        )
    write(arguments.into / "contracts.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
