from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import SGD

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab


def backward(network: nn.Module) -> None:
    network.zero_grad()
    network(torch.linspace(-1, 1, 12).reshape(3, 4)).square().sum().backward()


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_the_norm_before_and_the_factor_are_told_with_the_step(
    lab: "Lab", network: nn.Module, max_norm: float, norm_type: float
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    backward(network)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    before = [gradient.clone() for gradient in gradients]
    lab.env.clip_grad_norm_(network.parameters(), max_norm, norm_type)
    optimizer.step()
    (step,) = lab.steps
    assert step.clip_norm == pytest.approx(float(torch.nn.utils.get_total_norm(before, norm_type)))
    assert step.clip_factor is not None
    for clipped, gradient in zip(gradients, before, strict=True):
        assert torch.allclose(clipped, gradient * step.clip_factor)
    assert (step.clip_factor < 1) is (max_norm < 1)


def test_it_is_torchs_own_clipping(lab: "Lab", network: nn.Module) -> None:
    backward(network)
    ours = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in network.parameters()]
    for parameter, gradient in zip(theirs, ours, strict=True):
        parameter.grad = gradient.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    assert torch.equal(lab.env.clip_grad_norm_(network.parameters(), 0.5), expected)
    assert all(torch.equal(a, b.grad) for a, b in zip(ours, theirs, strict=True) if b.grad is not None)


def test_a_norm_that_is_not_finite_still_raises_where_the_caller_asks_for_it(lab: "Lab", network: nn.Module) -> None:
    backward(network)
    first = next(iter(network.parameters()))
    first.grad = torch.full_like(first, float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        lab.env.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=True)


def test_without_it_nothing_is_told_and_it_is_told_once(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    backward(network)
    lab.env.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.step()
    assert [step.clip_norm is None for step in lab.steps] == [False, True]
    assert lab.steps[1].clip_factor is None


def test_of_several_models_the_one_that_is_meant_is_told(lab: "Lab") -> None:
    networks = {name: nn.Linear(4, 2) for name in ("generator", "critic")}
    optimizers = {name: SGD(network.parameters(), lr=0.1) for name, network in networks.items()}
    for name, network in networks.items():
        lab.env.watch(network, optimizers[name], name=name)
        backward(network)
    lab.env.clip_grad_norm_(networks["critic"].parameters(), 1e-3, model="critic")
    lab.env.log_loss(1.0)
    lab.env.log_loss(2.0, model="critic")
    for name in ("critic", "generator"):
        optimizers[name].step()
    told = {step.model_name: (step.loss, step.clip_norm is None) for step in lab.steps}
    assert told == {"generator": (1.0, True), "critic": (2.0, False)}
