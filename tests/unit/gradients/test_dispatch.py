"""What a watch dispatches on the training thread: nothing that it need not, and nothing that waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from nissa import kernels
from nissa.gradients import weights
from nissa.kernels.moments import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select"}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.operations.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


class Idle(Optimizer):
    """Its step dispatches nothing, so that what is dispatched is ours."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The operations on data, without the marks that torch's profiler makes around a step."""
    found: list[str] = []
    with Recorder() as recorder:
        yield found
    found += [name for name in recorder.operations if name.startswith("aten::")]


@pytest.fixture
def make_lab(make_lab: "Callable[..., Lab]") -> "Callable[..., Lab]":
    """Without contracts, which start work of their own at a few steps; see `tests/contracts/test_cost.py`."""
    return partial(make_lab, diagnostics__contracts=False)


@pytest.fixture
def trained(network: nn.Module) -> tuple[nn.Module, Optimizer]:
    network(torch.randn(3, 4)).sum().backward()
    return network, Idle(network.parameters())


@pytest.fixture
def silent_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that dispatches nothing, so that the rest can be counted."""
    ready = torch.zeros((4, Layout().width), dtype=torch.int64)
    monkeypatch.setitem(kernels._CHOSEN, "cpu", lambda *_: ready)


def test_a_step_that_is_not_sampled_dispatches_nothing(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Module, Optimizer]
) -> None:
    lab = make_lab(gradients__every_n_steps=1000)
    lab.env.watch(*trained)
    trained[1].step()
    with recorded() as operations:
        for _ in range(3):
            lab.env.log_loss(0.5)
            trained[1].step()
    assert operations == []


def test_a_profile_without_gradients_dispatches_nothing(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Module, Optimizer]
) -> None:
    lab = make_lab("minimal")
    lab.env.watch(*trained)
    with recorded() as operations, lab.env.epoch(0):
        trained[1].step()
        lab.env.validate(loss=0.5, accuracy=0.5)
    assert operations == []


def test_a_loss_on_the_host_costs_nothing_but_to_leave_its_graph(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Module, Optimizer]
) -> None:
    lab = make_lab("minimal")
    lab.env.watch(*trained)
    loss = torch.tensor(0.5, requires_grad=True)
    with recorded() as operations:
        lab.env.log_loss(loss)
        trained[1].step()
    assert operations == ["aten::detach"] * 2  # one call, which torch tells of twice
    assert [step.loss for step in lab.steps] == [0.5]


def test_a_loss_that_numpy_cannot_read_costs_one_copy(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Module, Optimizer]
) -> None:
    lab = make_lab("minimal")
    lab.env.watch(*trained)
    loss = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    with recorded() as operations:
        lab.env.log_loss(loss)
        trained[1].step()
    assert operations.count("aten::_to_copy") == 1  # the value at the call, as float64
    assert set(operations) == {"aten::_to_copy", "aten::detach"}
    assert len(operations) <= 3
    assert [step.loss for step in lab.steps] == [0.5]


@pytest.mark.usefixtures("silent_kernel")
def test_a_sampled_step_dispatches_the_kernel_and_nothing_else(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Module, Optimizer]
) -> None:
    lab = make_lab(gradients__weight_norms=False)
    lab.env.watch(*trained)
    with recorded() as operations:
        trained[1].step()
    assert operations == []
    assert len(lab.samples) == 1


def test_operations_of_a_sampled_step_are_few_and_do_not_multiply_with_parameters(
    make_lab: "Callable[..., Lab]",
) -> None:
    counts = []
    for layers in (1, 50):
        network = nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer = Idle(network.parameters())
        lab = make_lab()
        lab.env.watch(network, optimizer)
        optimizer.step()  # builds the tables
        with recorded() as operations:
            optimizer.step()
        counts.append(len(operations))
        lab.hub.remove_backend("memory")
    few, many = counts
    assert few < 100
    assert many - few < 5 * 98


@pytest.mark.usefixtures("silent_kernel")
@pytest.mark.parametrize(("updates", "most"), [(False, 6), (True, 13)])
@pytest.mark.parametrize("compiled", [False, True])
def test_norms_of_weights_take_a_few_operations(
    make_lab: "Callable[..., Lab]",
    trained: tuple[nn.Module, Optimizer],
    monkeypatch: pytest.MonkeyPatch,
    *,
    updates: bool,
    most: int,
    compiled: bool,
) -> None:
    monkeypatch.setattr(weights, "_is_compiled", lambda: compiled)
    lab = make_lab(gradients__weight_norms=True, gradients__update_ratios=updates)
    lab.env.watch(*trained)
    with recorded() as operations:
        trained[1].step()
    assert operations.count("aten::_foreach_norm") == (0 if compiled else 1 + updates)
    assert len([name for name in operations if name != "aten::detach"]) <= most


@pytest.mark.parametrize("profile", ["diagnostic", "research"])
def test_nothing_waits_for_a_device_on_the_training_thread(
    make_lab: "Callable[..., Lab]", network: nn.Module, profile: str
) -> None:
    lab = make_lab(profile)
    optimizer = SGD(network.parameters(), lr=0.1, foreach=True)
    lab.env.watch(network, optimizer)
    with recorded() as operations, lab.env.epoch(0):
        for _ in range(3):
            optimizer.zero_grad()
            loss = network(torch.randn(3, 4)).square().mean()
            loss.backward()
            lab.env.log_loss(loss)
            optimizer.step()
        lab.env.validate(loss=loss, accuracy=torch.tensor(0.5))
    assert len(lab.samples) == 3
    assert not WAITS & set(operations)


def test_the_recorder_sees_a_wait() -> None:
    with recorded() as operations:
        torch.ones(1).item()
    assert WAITS & set(operations)
