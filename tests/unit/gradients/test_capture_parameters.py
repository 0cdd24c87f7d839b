"""Whatever the parameters: each that has a gradient is there once, and no other."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

INF, NAN = float("inf"), float("nan")


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_tied_weights_are_one_parameter(lab: "Lab") -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.decoder.weight = self.encoder.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.decoder(self.encoder(x))
            return hidden

    network = Tied()
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(3, 4)).sum())
    assert network.encoder.weight.grad is not None
    lab.agrees(lab.samples[0], {"encoder.weight": network.encoder.weight.grad})


def test_frozen_and_unused_parameters_are_absent_and_not_zero(lab: "Lab") -> None:
    network = nn.ModuleDict({"used": nn.Linear(4, 2), "frozen": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    network["frozen"].requires_grad_(requires_grad=False)
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    inputs = torch.randn(3, 4)
    step(optimizer, (network["used"](inputs) + network["frozen"](inputs)).sum())
    assert lab.samples[0].names == ("used.weight", "used.bias")
    assert lab.samples[0].health.layers == 2


def test_a_gradient_of_zeros_is_there(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(3, 4)).sum() * 0)
    sample = lab.samples[0]
    assert sample.moments.norm.tolist() == [0, 0, 0, 0]
    assert sample.health.global_norm == 0
    assert sample.health.vanishing == sample.names


def test_a_step_without_any_gradient_has_no_health(lab: "Lab", network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    optimizer.step()
    (sample,) = lab.samples
    assert (sample.names, len(sample.moments), sample.health.score) == ((), 0, None)
    snapshot = lab.env.validate(loss=1.0)
    assert snapshot.gradient_health is not None
    assert (snapshot.gradient_health.layers, snapshot.gradient_health.score) == (0, None)
    assert snapshot.narrative == "No gradients in the last sample"


def test_parameters_of_every_group_are_seen(lab: "Lab", network: nn.Sequential) -> None:
    groups: list[dict[str, Any]] = [{"params": network[2].parameters(), "lr": 0.3}, {"params": network[0].parameters()}]
    optimizer = SGD(groups, lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(3, 4)).sum())
    assert lab.samples[0].names == ("2.weight", "2.bias", "0.weight", "0.bias")
    assert lab.steps[0].learning_rate == 0.3


def test_a_parameter_that_the_model_does_not_have_is_called_by_its_place(lab: "Lab", network: nn.Module) -> None:
    extra = nn.Parameter(torch.ones(2))
    added = {"params": [nn.Parameter(torch.ones(1)), extra]}
    groups: list[dict[str, Any]] = [{"params": network.parameters()}, added]
    optimizer = SGD(groups, lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(3, 4)).sum() + extra.sum())
    assert lab.samples[0].names[-1] == "optimizer.group1.1"


def test_what_the_optimizer_does_not_train_is_not_seen(lab: "Lab", network: nn.Sequential) -> None:
    optimizer = SGD(network[0].parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(3, 4)).sum())
    assert lab.samples[0].names == ("0.weight", "0.bias")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64])
def test_every_dtype_is_measured_exactly(lab: "Lab", dtype: torch.dtype) -> None:
    network = nn.ParameterDict({"w": nn.Parameter(torch.ones(6, 3, dtype=dtype))})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    gradient = torch.randn(6, 3, dtype=dtype)
    network["w"].grad = gradient.clone()
    optimizer.step()
    lab.agrees(lab.samples[0], {"w": gradient})


def test_parameters_of_different_dtypes_share_a_sample(lab: "Lab") -> None:
    network = nn.ParameterDict({"narrow": torch.ones(2, dtype=torch.float16), "wide": torch.ones(3).double()})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    copy = {name: torch.randn_like(parameter) for name, parameter in network.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.grad = copy[name].clone()
    optimizer.step()
    lab.agrees(lab.samples[0], copy)


def test_the_implicit_zeros_of_a_sparse_gradient_count(lab: "Lab") -> None:
    network = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(list(network.parameters()))
    lab.env.watch(network, optimizer)
    for indices in ([1, 3, 3], [0]):
        step(optimizer, network(torch.tensor(indices)).square().sum())
    assert network.weight.grad is not None
    assert network.weight.grad.is_sparse
    lab.agrees(lab.samples[-1], {"weight": network.weight.grad})
    assert [int(sample.moments.zeros[0]) for sample in lab.samples] == [32, 36]


def test_an_empty_gradient_measures_nothing(lab: "Lab") -> None:
    network = nn.ParameterDict({"empty": torch.empty(0, 3), "full": torch.ones(2)})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network["full"].sum() + network["empty"].sum())
    sample = lab.samples[0]
    empty = lab.row(sample, "empty")
    assert empty.count[0] == 0
    assert np.isnan(empty.norm[0])
    assert sample.health.layers == 1
    assert sample.health.global_norm == pytest.approx(2**0.5)


def test_channels_last_changes_no_number(lab: "Lab") -> None:
    network = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    inputs = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    step(optimizer, network(inputs).square().sum())
    copy = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert not copy["weight"].is_contiguous()
    lab.agrees(lab.samples[0], copy)


def test_elements_that_are_not_finite_are_found_and_break_the_health(lab: "Lab") -> None:
    network = nn.ParameterDict({"bad": torch.ones(3), "good": torch.ones(2)})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    network["bad"].grad, network["good"].grad = torch.tensor([NAN, -INF, 2.0]), torch.tensor([3.0, 4.0])
    optimizer.step()
    sample = lab.samples[0]
    assert lab.row(sample, "bad").nonfinite[0] == 2
    assert (sample.health.score, sample.health.nonfinite) == (0.0, ("bad",))
    assert sample.health.global_norm == pytest.approx(29**0.5)


def test_wrappers_leave_no_trace_in_the_names(lab: "Lab", network: nn.Module) -> None:
    compiled: Any = torch.compile(network, backend="eager")
    wrapped = nn.DataParallel(compiled)
    optimizer = SGD(wrapped.parameters(), lr=0.1)
    assert next(iter(dict(wrapped.named_parameters()))) == "module._orig_mod.0.weight"
    lab.env.watch(wrapped, optimizer)
    step(optimizer, wrapped(torch.randn(3, 4)).sum())
    assert lab.samples[0].names == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_over_the_bound_parameters_fold_into_their_block_and_none_is_lost(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__max_parameters=3)
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), nn.Linear(3, 1))
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    step(optimizer, network(torch.randn(5, 2)).sum())
    sample = lab.samples[0]
    assert len(sample.names) == 3
    assert sample.moments.count.sum() == sum(parameter.numel() for parameter in network.parameters())
    assert sample.health.layers == 6
    assert float(sample.moments.global_norm) == pytest.approx(sample.health.global_norm)
