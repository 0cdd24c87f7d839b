"""Loops that lose all gradients: one warning names the cause, and no validation calls it normal."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.unit.gradients.conftest import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab(limits__validation_wait_seconds=10)
    yield made
    made.close()


def step(network: nn.Module, optimizer: SGD, *, detached: bool = False) -> None:
    optimizer.zero_grad()
    features = network[0](torch.ones(2, 3))  # type: ignore[index]
    loss = network[1](features).square().mean()  # type: ignore[index]
    if detached:
        loss = loss.detach().requires_grad_()
    loss.backward()
    optimizer.step()


def network_and_optimizer() -> tuple[nn.Module, SGD]:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return network, SGD(network.parameters(), lr=0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def assign(network: nn.Module) -> None:
    network.load_state_dict({name: each.clone() for name, each in network.state_dict().items()}, assign=True)


@pytest.mark.parametrize("zeroed", [True, False], ids=["gradients set to None", "old gradients stay"])
def test_parameters_that_load_state_dict_replaced_are_reported(
    lab: Lab, caplog: pytest.LogCaptureFixture, zeroed: bool
) -> None:
    network, optimizer = network_and_optimizer()
    lab.env.watch(network, optimizer)
    step(network, optimizer)
    assign(network)
    for _ in range(3):
        if zeroed:
            step(network, optimizer)
        else:
            network(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    (warning,) = warnings(caplog)
    assert "The gradients of Sequential are lost: its optimizer holds none of its parameters any more" in warning
    assert "load_state_dict(assign=True)" in warning
    if zeroed:
        assert lab.env.validate(loss=1.0).narrative == "No gradients in the last sample"


@pytest.mark.parametrize("closure", [False, True])
def test_a_detached_loss_is_reported(lab: Lab, caplog: pytest.LogCaptureFixture, closure: bool) -> None:
    network, optimizer = network_and_optimizer()
    lab.env.watch(network, optimizer)
    for _ in range(3):
        if closure:
            optimizer.zero_grad()
            optimizer.step(lambda: network(torch.ones(2, 3)).sum().detach())
        else:
            step(network, optimizer, detached=True)
    (warning,) = warnings(caplog)
    assert "No parameter of the optimizer has a gradient in this step" in warning
    assert "detach()" in warning
    assert "No gradients in the last sample" in lab.env.validate(loss=1.0).narrative


def freeze(network: nn.Module) -> None:
    network[0].requires_grad_(False)  # type: ignore[index]


def grow(network: nn.Module) -> None:
    assert isinstance(network, nn.Sequential)
    network[1] = nn.Linear(4, 1)


@pytest.mark.parametrize("change", [freeze, grow, lambda _: None], ids=["frozen", "one layer replaced", "nothing"])
def test_gradients_of_some_parameters_are_no_loss(
    lab: Lab, caplog: pytest.LogCaptureFixture, change: Callable[[nn.Module], None]
) -> None:
    network, optimizer = network_and_optimizer()
    lab.env.watch(network, optimizer)
    change(network)
    for _ in range(3):
        step(network, optimizer)
    assert warnings(caplog) == []
    assert "No gradients" not in lab.env.validate(loss=1.0).narrative
