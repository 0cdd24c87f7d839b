"""Hooks of contracts: they change nothing, leave no trace in copies, and are absent on compiled models, which is reported."""

import copy
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import nissa
from nissa.backends.memory import MemoryBackend
from nissa.gradients.forward_probe import _Hook
from nissa.hub.measurements import StepMeasured
from tests.contracts.program import SETTINGS
from tests.unit.gradients.test_dispatch import WAITS, recorded

STEPS = 12


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def train(model: Any, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = cross_entropy(model(torch.randn(16, 8)), torch.randint(3, (16,)))
        torch.autograd.backward(loss)
        optimizer.step()


def facts(memory: MemoryBackend) -> list[StepMeasured]:
    return [each for each in memory.measurements if isinstance(each, StepMeasured) and each.program is not None]


def own_hooks(module: Any) -> int:
    """Return the number of hooks of contracts."""
    return sum(
        isinstance(each, _Hook) for each in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    )


def observed_run(model: Any, trained: Any | None = None, *, contracts: bool = True) -> list[StepMeasured]:
    memory = MemoryBackend()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with nissa.start("standard", backends=[memory], diagnostics__contracts=contracts, **SETTINGS) as run:
        run.watch(model, optimizer)
        train(model if trained is None else trained, optimizer)
        assert run.flush(30)
    return facts(memory)


def test_values_of_the_forward_pass_travel_with_the_observed_steps() -> None:
    steps = observed_run(network())
    assert [each.step for each in steps] == [0, 1, 2, 4, 10]
    assert {"batch", "probability", "top_share", "top_class"} <= steps[0].signals.keys()
    assert steps[1].signals["input_rms"] == pytest.approx(1, abs=0.3)


def test_a_compiled_model_gets_no_hooks_which_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nissa")
    model = network()
    compiled: Any = torch.compile(model, backend="eager")
    steps = observed_run(compiled)
    assert own_hooks(model) == own_hooks(compiled) == 0
    assert steps[0].program is not None
    assert (steps[0].program.forwards, "batch" in steps[0].signals) == (None, False)
    assert "the model is compiled" in caplog.text


@pytest.mark.parametrize("contracts", [True, False])
def test_hooks_of_contracts_neither_break_a_graph_nor_compile_a_model_again(
    contracts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nissa")
    model = network()
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    observed_run(model, compiled, contracts=contracts)
    assert len(graphs) == 1
    assert ("no forward pass of the model was seen" in caplog.text) is contracts


def test_a_watch_without_hooks_leaves_the_model_as_it_is() -> None:
    model, memory = network(), MemoryBackend()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with nissa.start("standard", backends=[memory], **SETTINGS) as run:
        watch = run.watch(model, optimizer, hooks=False)
        assert own_hooks(model) == 0
        with watch.step():
            optimizer.step()
        assert run.flush(30)


def test_hooks_are_registered_once_and_removed_with_the_watch() -> None:
    model = network()
    first, second = torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.SGD(model[3].parameters(), 0.1)
    with nissa.start("standard", **SETTINGS) as run:
        watch = run.watch(model, [first, second])
        assert (own_hooks(model), own_hooks(model[0])) == (2, 0)
        for _ in range(2):
            torch.autograd.backward(model(torch.randn(4, 8)).sum())
            first.step()
        assert (own_hooks(model), own_hooks(model[0])) == (2, 1)
        watch.close()
        assert own_hooks(model) == own_hooks(model[0]) == 0
        run.watch(model, [first, second])
        assert own_hooks(model) == 2
    assert own_hooks(model) == own_hooks(model[0]) == 0


def test_copies_and_pickles_of_a_watched_model_work_without_nissa(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(4, 8)
    with nissa.start("standard", **SETTINGS) as run:
        run.watch(model, optimizer)
        train(model, optimizer, 2)
        twin = copy.deepcopy(model).eval()
        pickled = pickle.dumps(model.eval())
        torch.save(model, tmp_path / "model.pt")
        expected = model(x)
    assert torch.equal(twin(x), expected)
    assert torch.equal(pickle.loads(pickled)(x), expected)  # noqa: S301 - made above
    assert b"nissa" not in pickled
    body = (
        "import sys, torch; sys.modules['nissa'] = None; "
        "print(torch.load('model.pt', weights_only=False)(torch.zeros(1, 8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.faults
def test_an_error_in_a_hook_does_not_reach_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("nissa.gradients.forward_probe._digest", broken)
    monkeypatch.setattr("nissa.gradients.forward_probe.output_signals", broken)
    assert observed_run(network())


def test_a_step_that_is_not_observed_dispatches_nothing_and_no_step_waits() -> None:
    model = network()

    class Idle(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(model.parameters(), {"lr": 0.1})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            pass

    optimizer = Idle()
    torch.autograd.backward(model(torch.randn(4, 8)).sum())
    with nissa.start("minimal", **SETTINGS) as run:
        run.watch(model, optimizer)
        with recorded() as first:
            optimizer.step()
        assert first  # the first step is observed
        assert not WAITS & set(first)
        for _ in range(4):
            optimizer.step()
        with recorded() as operations:
            for _ in range(5):
                optimizer.step()
        assert operations == []
        with recorded() as later:
            optimizer.step()
        assert later
        assert not WAITS & set(later)


def test_contracts_change_no_weight_and_no_random_number() -> None:
    results = []
    for contracts in (True, False):
        torch.manual_seed(3)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        with nissa.start("minimal", diagnostics__contracts=contracts, **SETTINGS) as run:
            run.watch(model, optimizer)
            train(model, optimizer)
        results.append([*(each.detach().clone() for each in model.parameters()), torch.rand(4)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
