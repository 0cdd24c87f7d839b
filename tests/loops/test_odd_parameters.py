"""Optimizers that hold parameters without statistics: all other parameters are measured."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from tests.unit.gradients.conftest import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab("research")
    yield made
    made.close()


def frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def with_float8_gradient() -> nn.Parameter:
    parameter = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn))
    parameter.grad = torch.ones(3).to(torch.float8_e4m3fn)
    return parameter


ODD: dict[str, tuple[Callable[[], nn.Parameter | UninitializedParameter], str]] = {
    "int8": (lambda: frozen(torch.ones(3, dtype=torch.int8)), "int8"),
    "float8": (with_float8_gradient, "float8_e4m3fn"),
    "bool": (lambda: frozen(torch.ones(3, dtype=torch.bool)), "bool"),
    "lazy": (UninitializedParameter, "not initialised"),
    "sparse": (lambda: frozen(torch.ones(3).to_sparse()), "sparse_coo"),
}


@pytest.mark.parametrize(("make", "reason"), ODD.values(), ids=ODD)
@pytest.mark.parametrize("closure", [False, True], ids=["step()", "step(closure)"])
def test_a_parameter_without_statistics_is_named_and_left_out(
    lab: Lab,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], nn.Parameter | UninitializedParameter],
    reason: str,
    closure: bool,
) -> None:
    network = nn.Linear(4, 1)
    network.odd = make()

    class Optimizer(torch.optim.SGD):
        """Changes nothing, since torch's own cannot update such a parameter either."""

        def step(self, closure: Callable[[], torch.Tensor] | None = None) -> None:  # type: ignore[override]
            if closure is not None:
                closure()

    optimizer = Optimizer(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)

    def backward() -> torch.Tensor:
        network.weight.grad = network.bias.grad = None
        loss = nn.functional.linear(torch.ones(2, 4), network.weight, network.bias).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with caplog.at_level(logging.WARNING, "nissa"):
        for _ in range(3):
            if closure:
                optimizer.step(backward)
            else:
                backward()
                optimizer.step()
    assert network.weight.grad is not None
    assert network.bias.grad is not None
    for sample in lab.samples:
        lab.agrees(sample, {"weight": network.weight.grad, "bias": network.bias.grad})
    assert len(lab.samples) == 3
    (warning,) = [record.getMessage() for record in caplog.records if "Not measured" in record.getMessage()]
    assert f"odd ({reason})" in warning
    assert not lab.hub.error_boundary.faults
