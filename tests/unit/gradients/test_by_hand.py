"""Steps without hooks, inside compiled code, and recorded into graphs."""

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.optim import SGD, Adam

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab


def backward(network: nn.Module) -> dict[str, torch.Tensor]:
    network.zero_grad()
    network(torch.linspace(-1, 1, 12).reshape(3, 4)).square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_without_hooks_the_optimizer_is_left_alone(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    before = len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)
    lab.env.watch(network, optimizer, hooks=False)
    assert (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)) == before
    backward(network)
    optimizer.step()
    assert lab.steps == []


def test_a_step_by_hand_is_seen_like_one_with_hooks(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer, hooks=False)
    for number in range(2):
        truth = backward(network)
        lab.env.log_loss(number)
        with watch.step():
            optimizer.step()
        lab.agrees(lab.samples[-1], truth)
    assert [(step.step, step.loss) for step in lab.steps] == [(0, 0.0), (1, 1.0)]


def test_by_hand_and_by_hook_a_step_counts_once(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    backward(network)
    with watch.step():
        optimizer.step()
    assert [step.step for step in lab.steps] == [0]
    assert len(lab.samples) == 1


def test_a_step_by_hand_that_raises_is_no_step(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer, hooks=False)
    backward(network)
    with pytest.raises(ZeroDivisionError), watch.step():
        raise ZeroDivisionError
    with watch.step():
        optimizer.step()
    assert [step.step for step in lab.steps] == [0]


def test_after_closing_a_step_by_hand_is_only_a_step(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer, hooks=False)
    watch.close()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    backward(network)
    with watch.step():
        optimizer.step()
    assert lab.steps == []
    assert not any(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


class Compiled:
    """Counts what dynamo makes of a function, without a compiler behind it."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        counters.clear()
        self.graphs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward

    @property
    def breaks(self) -> int:
        return sum(counters["graph_break"].values())


def test_a_compiled_model_has_no_graph_break_and_no_recompile_of_ours(lab: "Lab", network: nn.Module) -> None:
    counted = Compiled()
    compiled: Any = torch.compile(network, backend=counted)
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(compiled, optimizer)
    truth = {}
    with lab.env.epoch(0):
        for _ in range(4):
            optimizer.zero_grad()
            loss = compiled(torch.linspace(-1, 1, 12).reshape(3, 4)).square().mean()
            loss.backward()
            lab.env.log_loss(loss)
            truth = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
            optimizer.step()
    assert (counted.graphs, counted.breaks) == (1, 0)
    assert len(lab.samples) == 4
    lab.agrees(lab.samples[-1], truth)


def steps_of(network: nn.Module, optimizer: torch.optim.Optimizer, counted: Compiled, watch: Any = None) -> None:
    stepping = torch.compile(optimizer.step, backend=counted)
    for _ in range(4):
        backward(network)
        if watch is None:
            stepping()
        else:
            with watch.step():
                stepping()


def test_a_compiled_step_breaks_for_the_hooks_and_not_again_and_without_hooks_not_at_all(
    lab: "Lab", network: nn.Module
) -> None:
    bare = Compiled()
    steps_of(network, Adam(network.parameters(), lr=torch.tensor(0.1), foreach=False), bare)
    by_hand, other = Compiled(), Adam(network.parameters(), lr=torch.tensor(0.1), foreach=False)
    watch = lab.env.watch(network, other, hooks=False)
    steps_of(network, other, by_hand, watch)
    assert (by_hand.graphs, by_hand.breaks) == (bare.graphs, bare.breaks)
    assert len(lab.steps) == len(lab.samples) == 4
    hooked, third = Compiled(), Adam(network.parameters(), lr=torch.tensor(0.1), foreach=False)
    lab.env.watch(network, third, name="hooked")
    steps_of(network, third, hooked)
    assert len([step for step in lab.steps if step.model_name == "hooked"]) == 4
    assert hooked.breaks <= bare.breaks + 1


def test_a_step_recorded_into_a_graph_is_no_step_and_is_said_once(
    lab: "Lab", network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    # What a stream answers while it is captured; the capture itself needs a GPU and is tested there.
    monkeypatch.setattr("nissa.gradients.watch.recording", lambda: True)
    with caplog.at_level(logging.WARNING, "nissa"):
        for _ in range(2):
            backward(network)
            lab.env.log_loss(1.0)
            optimizer.step()
    assert [record.message for record in caplog.records if "CUDA graph" in record.message] == [caplog.messages[0]]
    assert lab.steps == []
    assert lab.samples == []
    monkeypatch.setattr("nissa.gradients.watch.recording", lambda: False)
    backward(network)
    optimizer.step()
    assert [step.step for step in lab.steps] == [0]
