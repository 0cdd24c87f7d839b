"""Steps that are captured into a CUDA graph."""

import logging
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer

from tests.gpu.training import on_host, taken

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab


class Captured:
    """Forward and backward in one graph, the optimizer's step in another, so that gradients can be looked at between."""

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.inputs = torch.linspace(-1, 1, 64).reshape(16, 4).cuda()
        self.gradients, self.stepping = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()

    def capture(self) -> None:
        with torch.cuda.graph(self.gradients):
            self._backward()
        with torch.cuda.graph(self.stepping):
            self.optimizer.step()

    def warm_up(self) -> None:
        # As torch's notes on CUDA graphs have it: what is set up at first must not be captured.
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                self._backward()
                self.optimizer.step()
        torch.cuda.current_stream().wait_stream(beside)
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(self.network(self.inputs).square().mean())


@pytest.fixture
def optimizer(network: nn.Module) -> Adam:
    return Adam(network.parameters(), lr=0.01, capturable=True)


def test_a_captured_step_is_said_once_and_not_counted(
    lab: "Lab", network: nn.Module, optimizer: Adam, caplog: pytest.LogCaptureFixture
) -> None:
    watch = lab.env.watch(network, optimizer)
    captured = Captured(network, optimizer)
    captured.warm_up()
    lab.flush()  # no query of an event while a stream is captured
    assert watch.steps == 3
    with caplog.at_level(logging.WARNING, "nissa"):
        captured.capture()
        for _ in range(4):
            captured.gradients.replay()
            captured.stepping.replay()
    assert watch.steps == 3
    assert [step.step for step in lab.steps] == [sample.step for sample in lab.samples] == [0, 1, 2]
    assert len([message for message in caplog.messages if "recorded into a CUDA graph" in message]) == 1


def test_replayed_steps_are_counted_by_hand(lab: "Lab", network: nn.Module, optimizer: Adam) -> None:
    watch = lab.env.watch(network, optimizer, hooks=False)
    captured = Captured(network, optimizer)
    captured.warm_up()
    captured.capture()
    assert watch.steps == 0
    copies = []
    for _ in range(4):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        captured.gradients.replay()
        copies.append(taken(network))
        with watch.step():
            captured.stepping.replay()
        assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert watch.steps == 4
    assert [step.step for step in lab.steps] == [0, 1, 2, 3]
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, on_host(copy))
