"""Norms of weights and of their updates, against copies that the training loop takes."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab


def copies(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def norm(tensor: torch.Tensor) -> float:
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return float(values.double().norm())


def backward(network: nn.Module) -> torch.Tensor:
    loss: torch.Tensor = network(torch.linspace(-1, 1, 12).reshape(3, 4)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_norms_are_those_before_the_step_and_ratios_those_of_its_change(
    make_lab: "Callable[..., Lab]", network: nn.Module, kind: "Callable[..., torch.optim.Optimizer]"
) -> None:
    lab = make_lab("research")
    optimizer = kind(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    truth = []
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        before = copies(network)
        optimizer.step()
        after = copies(network)
        truth.append({name: (norm(before[name]), norm(after[name] - before[name])) for name in before})
    for sample, taken in zip(lab.samples, truth, strict=True):
        assert sample.weight_norms is not None
        assert sample.update_ratios is not None
        assert sample.weight_norms == pytest.approx([taken[name][0] for name in sample.names], rel=1e-6)
        ratios = [taken[name][1] / taken[name][0] for name in sample.names]
        assert sample.update_ratios == pytest.approx(ratios, rel=1e-5)


def test_a_closures_step_moves_from_where_it_began(make_lab: "Callable[..., Lab]", network: nn.Module) -> None:
    lab = make_lab("research")
    optimizer = LBFGS(network.parameters(), max_iter=5)
    lab.env.watch(network, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        return backward(network)

    before = copies(network)
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    after = copies(network)
    (sample,) = lab.samples
    assert sample.update_ratios is not None
    expected = [norm(after[name] - before[name]) / norm(before[name]) for name in sample.names]
    assert sample.update_ratios == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_every_dtype_has_norms(make_lab: "Callable[..., Lab]", dtype: torch.dtype) -> None:
    lab = make_lab("research")
    network = nn.ParameterDict({"a": torch.arange(1, 5).to(dtype), "b": torch.ones(2, 2)})
    optimizer = SGD(network.parameters(), lr=0.5)
    lab.env.watch(network, optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    (sample,) = lab.samples
    assert sample.weight_norms is not None
    assert sample.update_ratios is not None
    assert sample.names == ("a", "b")
    assert sample.weight_norms == pytest.approx([30**0.5, 2.0])
    assert sample.update_ratios == pytest.approx([0.5 * 2 / 30**0.5, 0.5])


def test_parameters_of_zeros_have_no_ratio_and_broken_ones_a_broken_norm(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab("research")
    network = nn.ParameterDict({"zero": torch.zeros(2), "nan": torch.tensor([float("nan"), 1.0])})
    optimizer = SGD(network.parameters(), lr=0.5)
    lab.env.watch(network, optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    (sample,) = lab.samples
    assert sample.weight_norms is not None
    assert sample.update_ratios is not None
    norms = dict(zip(sample.names, sample.weight_norms, strict=True))
    assert norms["zero"] == 0.0
    assert np.isnan(norms["nan"])
    assert np.isnan(sample.update_ratios).all()


def test_folded_parameters_share_the_norm_of_all(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab("research", gradients__max_parameters=1)
    network = nn.ParameterDict({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    optimizer = SGD(network.parameters(), lr=1.0)
    lab.env.watch(network, optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    (sample,) = lab.samples
    assert sample.weight_norms is not None
    assert sample.update_ratios is not None
    assert sample.weight_norms.tolist() == [5.0]
    assert sample.update_ratios == pytest.approx([2**0.5 / 5])


def test_only_parameters_with_a_gradient_have_norms(make_lab: "Callable[..., Lab]", network: nn.Module) -> None:
    lab = make_lab("research")
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    first = next(iter(network.parameters()))
    first.grad = torch.ones_like(first)
    optimizer.step()
    (sample,) = lab.samples
    assert sample.weight_norms is not None
    assert sample.weight_norms.shape == (1,)


@pytest.mark.parametrize("profile", ["standard", "minimal"])
def test_what_a_profile_does_not_ask_for_is_absent(
    make_lab: "Callable[..., Lab]", network: nn.Module, profile: str
) -> None:
    lab = make_lab(profile)
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    backward(network)
    optimizer.step()
    assert [(each.weight_norms, each.update_ratios) for each in lab.samples] == [(None, None)] * (profile != "minimal")
