"""Whatever the optimizer: each step is counted once, and its gradients are those that it used."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD with momentum and weight decay": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: Adam(p, foreach=False),
    "foreach Adam": lambda p: Adam(p, foreach=True),
    "fused Adam": lambda p: Adam(p, fused=True),
    "AdamW": lambda p: AdamW(p, foreach=False, weight_decay=0.1),
    "foreach AdamW": lambda p: AdamW(p, foreach=True, weight_decay=0.1),
    "maximizing AdamW": lambda p: AdamW(p, maximize=True),
    "RMSprop": RMSprop,
}


class Calling(AdamW):
    """Its step() calls that of its parent, for which torch runs the hooks once more."""

    broken = False

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if self.broken:
            raise ArithmeticError("the optimizer's own")
        return loss


class Inheriting(Adam):
    """Has the step() of its parent."""


def backward(network: torch.nn.Module, scale: float = 1.0) -> torch.Tensor:
    loss: torch.Tensor = network(torch.randn(16, 4)).square().mean() * scale
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def taken(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_gradients_are_those_that_the_optimizer_used(lab: "Lab", network: torch.nn.Module, make: Make) -> None:
    optimizer = make(list(network.parameters()))
    lab.env.watch(network, optimizer)
    copies = []
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        copies.append(taken(network))
        optimizer.step()
    assert [sample.step for sample in lab.samples] == [0, 1, 2]
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, copy)
        everything = torch.cat([gradient.flatten() for gradient in copy.values()]).double()
        assert sample.health.global_norm == pytest.approx(everything.norm().item(), rel=1e-12)


def test_an_optimizer_that_inherits_step_counts_each_step_once(lab: "Lab", network: torch.nn.Module) -> None:
    Adam(network.parameters())  # makes torch hook the parent's step
    optimizer = Inheriting(network.parameters())
    watch = lab.env.watch(network, optimizer)
    for _ in range(3):
        backward(network)
        optimizer.step()
    assert watch.steps == 3
    assert [step.step for step in lab.steps] == [sample.step for sample in lab.samples] == [0, 1, 2]


def test_a_step_that_calls_the_step_of_its_parent_counts_once(lab: "Lab", network: torch.nn.Module) -> None:
    AdamW(network.parameters())
    optimizer = Calling(network.parameters())
    watch = lab.env.watch(network, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        optimizer.step()
    assert watch.steps == 3
    assert [step.step for step in lab.steps] == [sample.step for sample in lab.samples] == [0, 1, 2]
    lab.agrees(lab.samples[-1], taken(network))


def test_steps_are_counted_on_after_one_of_a_nested_step_raised(lab: "Lab", network: torch.nn.Module) -> None:
    AdamW(network.parameters())
    optimizer = Calling(network.parameters())
    watch = lab.env.watch(network, optimizer)
    backward(network)
    optimizer.broken = True
    kept: list[BaseException] = []  # as a debugger does, with its traceback and frames
    with pytest.raises(ArithmeticError, match="the optimizer's own") as raised:
        optimizer.step()
    kept.append(raised.value)
    optimizer.broken = False
    for _ in range(2):
        optimizer.step()
    assert watch.steps == 2
    assert [sample.step for sample in lab.samples] == [0, 1]
    assert kept


def test_a_scheduler_that_wraps_step_does_not_count_it_twice(lab: "Lab", network: torch.nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    lab.env.watch(network, optimizer)
    for _ in range(3):
        backward(network)
        optimizer.step()
        scheduler.step()
    assert [step.learning_rate for step in lab.steps] == [0.4, 0.2, 0.1]


def test_a_learning_rate_may_be_a_tensor_and_zero_is_zero(lab: "Lab", network: torch.nn.Module) -> None:
    parameters = list(network.parameters())
    on_device, frozen = Adam(parameters[:2], lr=torch.tensor(0.1), foreach=False), SGD(parameters[2:], lr=0.0)
    lab.environment("a").watch(network, on_device)
    lab.environment("b").watch(network, frozen)
    backward(network)
    on_device.step()
    frozen.step()
    assert {step.env_id: step.learning_rate for step in lab.steps} == {"a": pytest.approx(0.1), "b": 0.0}


@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_closure_is_seen_once_its_gradients_exist(lab: "Lab", network: torch.nn.Module, *, by_keyword: bool) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    copies: list[dict[str, torch.Tensor]] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = backward(network)
        copies.append(taken(network))
        return float(loss)

    returned = optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)
    assert isinstance(returned, float)
    assert len(copies) == 1
    (sample,) = lab.samples
    lab.agrees(sample, copies[0])


def test_of_the_evaluations_of_lbfgs_the_first_of_each_step_is_seen(lab: "Lab", network: torch.nn.Module) -> None:
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=4, history_size=3)
    watch = lab.env.watch(network, optimizer)
    inputs = torch.randn(16, 4)
    copies: list[list[dict[str, torch.Tensor]]] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = network(inputs).square().mean()
        loss.backward()
        copies[-1].append(taken(network))
        return float(loss.detach())

    for _ in range(2):
        copies.append([])
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert all(len(of_step) > 1 for of_step in copies)
    assert watch.steps == 2
    for sample, of_step in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, of_step[0])


def test_a_positional_argument_that_is_no_closure_arrives_unchanged(lab: "Lab", network: torch.nn.Module) -> None:
    class Scaled(SGD):
        def step(self, factor: float) -> Any:  # type: ignore[override]
            self.factor = factor
            return super().step()

    optimizer = Scaled(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    backward(network)
    optimizer.step(0.25)
    assert optimizer.factor == 0.25
    lab.agrees(lab.samples[0], taken(network))


def test_a_closure_may_take_arguments(lab: "Lab", network: torch.nn.Module) -> None:
    class Telling(SGD):
        def step(self, closure: Any = None) -> Any:
            return closure(3, scale=2.0)

    optimizer = Telling(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    assert optimizer.step(lambda times, scale: backward(network, scale) * 0 + times) == 3
    lab.agrees(lab.samples[0], taken(network))


def test_accumulated_micro_batches_are_one_step(lab: "Lab", network: torch.nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    for _ in range(4):
        lab.env.log_loss(backward(network, scale=0.25))
    copy = taken(network)
    optimizer.step()
    assert watch.steps == 1
    (sample,) = lab.samples
    lab.agrees(sample, copy)


def test_clipping_before_the_step_is_seen(lab: "Lab", network: torch.nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    backward(network, scale=100.0)
    before = float(torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=0.5))
    assert before > 1
    optimizer.step()
    assert lab.samples[0].health.global_norm == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_loss_is_not_seen_in_the_gradients(lab: "Lab", network: torch.nn.Module, *, fused: bool) -> None:
    optimizer = Adam(network.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    lab.env.watch(network, optimizer)
    scaler.scale(network(torch.randn(16, 4)).square().mean()).backward()
    scaler.step(optimizer)
    lab.agrees(lab.samples[0], taken(network))  # the step left them unscaled


def test_a_compiled_step_counts_and_is_sampled_like_any_other(lab: "Lab", network: torch.nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    compiled = torch.compile(optimizer.step, backend="eager")
    copies = []
    for loss in (1.0, 2.0, 3.0):
        optimizer.zero_grad()
        backward(network)
        copies.append(taken(network))
        lab.env.log_loss(loss)
        compiled()
    assert watch.steps == 3
    assert [step.loss for step in lab.steps] == [1.0, 2.0, 3.0]
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, copy)
