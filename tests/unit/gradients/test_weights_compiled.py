"""Norms of weights by the compiled kernel against those that torch finds."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nissa import kernels
from nissa.gradients import weights
from nissa.gradients.weights import Weights
from nissa.kernels import reference
from tests.unit.kernels.agreement import DTYPES

NAN, INF = float("nan"), float("inf")
Parameters = list[torch.Tensor]


@pytest.fixture(autouse=True)
def as_in_a_hook() -> Iterator[None]:
    with torch.no_grad():
        yield


def values(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    generator = torch.Generator().manual_seed(sum(shape))
    return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))


def by_torch(parameters: Parameters, step: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setitem(kernels._CHOSEN, "cpu", reference.measure)
        found = Weights(parameters, updates=True)
        step()
        return found.squares(parameters)


def move(parameters: Parameters) -> None:
    for parameter in parameters:
        parameter.add_(parameter.abs().clamp(max=2.0) * 0.25 + 0.125)


def assert_agrees(make: Callable[[], Parameters], monkeypatch: pytest.MonkeyPatch, *, rtol: float = 1e-6) -> None:
    mine, theirs = make(), make()
    found = Weights(mine, updates=True)
    move(mine)
    expected = by_torch(theirs, lambda: move(theirs), monkeypatch)
    np.testing.assert_allclose(found.squares(mine).numpy(), expected.numpy(), rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_and_short_parameters_of_every_dtype(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # A change of half precision is rounded by torch, and not by the kernel.
    rtol = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-6)
    assert_agrees(lambda: [values(size, dtype=dtype) for size in (1, 0, 3000, 1_200_000, 63)], monkeypatch, rtol=rtol)


def test_all_kinds_of_parameters_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Parameters:
        return [
            values(30, 20),
            nn.Parameter(values(30, 20).detach().T),
            values(8, 6, 5, 5).to(memory_format=torch.channels_last).detach(),
            values(5, dtype=torch.complex64),
            values(9, dtype=torch.float64),
            nn.Parameter(torch.tensor(3.0)),
        ]

    assert_agrees(make, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_what_is_not_finite_passes_through(dtype: torch.dtype, odd: float) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, odd, 2.0]).to(dtype))
    found = Weights([parameter], updates=True).squares([parameter])
    np.testing.assert_array_equal(found[0].numpy(), [NAN if np.isnan(odd) else INF, NAN])


def test_subnormal_numbers_of_half_precision_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.arange(1, 2**10, dtype=torch.int16).view(torch.float16)
    assert_agrees(lambda: [nn.Parameter(every.clone())], monkeypatch, rtol=2e-3)


def test_a_step_may_put_other_memory_into_a_parameter() -> None:
    one, other = values(30, 20), values(12)
    found = Weights([one, other], updates=True)
    before = one.detach().clone()
    one.data = (before * 2).t().contiguous().t()
    assert not one.is_contiguous()
    rows = found.squares([one, other])
    assert rows[0, 1] == pytest.approx(float(before.double().square().sum()))
    assert rows[1, 1] == 0.0


def test_only_those_that_are_asked_for_in_their_order() -> None:
    parameters: Parameters = [values(3), values(4), values(5, dtype=torch.complex64), values(6)]
    rows = Weights(parameters, updates=False).squares([parameters[i] for i in (3, 2, 0)])
    expected = [float(parameters[i].abs().double().square().sum()) for i in (3, 2, 0)]
    np.testing.assert_allclose(rows[:, 0].numpy(), expected, rtol=1e-6)


def test_copies_are_gone_once_the_change_is_known() -> None:
    parameter = values(1000)
    found = Weights([parameter], updates=True)
    assert found._compiled._copies is not None
    found.squares([parameter])
    assert found._compiled._copies is None


def test_the_compiled_loop_is_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def seen(tensors: Parameters, *_rest: Any, **_more: Any) -> Any:
        read.append(len(tensors))
        return np.zeros(len(tensors))

    monkeypatch.setattr(weights, "squares", seen)
    parameters: Parameters = [values(3), values(4)]
    weights.Weights(parameters, updates=True).squares(parameters)
    assert read == [2, 2]
