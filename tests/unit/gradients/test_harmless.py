"""Training is bit for bit what it is without us: weights, gradients, losses and every random number."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from nissa.config.files import PROFILES

if TYPE_CHECKING:
    from nissa.run.environment import Environment
    from tests.unit.gradients.conftest import Lab

STEPS = 30
EPOCHS = 3

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": torch.optim.AdamW,
    "LBFGS": lambda p: torch.optim.LBFGS(p, max_iter=2),
}


def train(env: "Environment | None", make: Callable[[Any], torch.optim.Optimizer]) -> list[Any]:
    """Train with dropout, noisy data and a learning rate drawn by chance; return all that there is to compare."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(7)
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))
    network[0].bias.requires_grad = False
    optimizer = make([parameter for parameter in network.parameters() if parameter.requires_grad])
    trace: list[Any] = []
    watch = env.watch(network, optimizer) if env else None
    for epoch in range(EPOCHS):
        context = env.epoch(epoch) if env else None
        if context:
            context.__enter__()
        for _ in range(STEPS // EPOCHS):
            inputs = torch.randn(16, 4) + float(np.random.normal()) * random.random()  # noqa: NPY002, S311 - global state is the point

            def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
                optimizer.zero_grad()
                loss: torch.Tensor = network(inputs).square().mean()
                loss.backward()  # type: ignore[no-untyped-call]
                if env:
                    env.log_loss(loss)
                return loss

            loss: Any = optimizer.step(closure)  # type: ignore[arg-type]
            trace.append(loss.detach().clone())
        if env and context:
            env.validate(loss=0.5, accuracy=0.5, per_class_accuracy={"a": 0.1, "b": 0.9})
            context.__exit__(None, None, None)
    trace += [parameter.detach().clone() for parameter in network.parameters()]
    trace += [parameter.grad for parameter in network.parameters()]
    trace += [(module.training, [each.requires_grad for each in module.parameters()]) for module in network.modules()]
    if watch:
        assert watch.steps == STEPS
        watch.close()
    return [*trace, torch.get_rng_state(), repr(np.random.get_state()), random.getstate()]  # noqa: NPY002 - as above


def same(bare: Any, watched: Any) -> bool:
    if isinstance(bare, torch.Tensor):
        return torch.equal(bare, watched)
    return bool(bare == watched)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("profile", PROFILES)
def test_training_is_the_same_with_and_without_a_watch(
    make_lab: "Callable[..., Lab]", profile: str, make: Callable[[Any], torch.optim.Optimizer]
) -> None:
    bare = train(None, make)
    lab = make_lab(profile)
    watched = train(lab.env, make)
    assert len(lab.steps) == STEPS
    assert len(bare) == len(watched)
    assert all(same(one, other) for one, other in zip(bare, watched, strict=True))


def test_the_comparison_can_fail() -> None:
    one, other = train(None, OPTIMIZERS["SGD"]), train(None, OPTIMIZERS["AdamW"])
    assert not all(same(a, b) for a, b in zip(one, other, strict=True))


def test_gradients_are_only_read(lab: "Lab") -> None:
    network = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    lab.env.watch(network, optimizer)
    network(torch.randn(3, 4)).sum().backward()
    before = [
        (parameter.grad, parameter.grad._version) for parameter in network.parameters() if parameter.grad is not None
    ]
    optimizer.step()
    after = [
        (parameter.grad, parameter.grad._version) for parameter in network.parameters() if parameter.grad is not None
    ]
    assert all(one[0] is other[0] and one[1] == other[1] for one, other in zip(before, after, strict=True))


def backward(network: nn.Module) -> None:
    torch.autograd.backward(network(torch.ones(2, 3)).square().mean())


def taken(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_a_capturable_optimizer_refuses_a_cpu_as_it_does_without_us(lab: "Lab") -> None:
    network = nn.Linear(3, 1)
    optimizer = Adam(network.parameters(), capturable=True)
    backward(network)
    with pytest.raises(AssertionError) as bare:
        optimizer.step()
    watch = lab.env.watch(network, optimizer)
    with pytest.raises(AssertionError) as watched:
        optimizer.step()
    assert str(watched.value) == str(bare.value)
    assert watch.steps == 0
    assert lab.steps == []


@pytest.mark.parametrize("foreach", [False, True])
def test_a_compiled_capturable_optimizer_is_seen_like_any_other(lab: "Lab", *, foreach: bool) -> None:
    torch._dynamo.reset()
    network = nn.Linear(3, 1)
    optimizer = Adam(network.parameters(), lr=torch.tensor(0.1), capturable=True, foreach=foreach)
    lab.env.watch(network, optimizer)
    step = torch.compile(optimizer.step, backend="eager")
    copies = []
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        copies.append(taken(network))
        step()
    assert [each.step for each in lab.steps] == [0, 1, 2]
    assert [each.learning_rate for each in lab.steps] == pytest.approx([0.1] * 3)
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, copy)


def test_accumulated_steps_are_sampled_by_their_own_number(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__every_n_steps=2)
    network = nn.Linear(3, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    copies = []
    for batch in range(20):
        backward(network)
        if batch % 4 == 3:
            copies.append(taken(network))
            optimizer.step()
            optimizer.zero_grad()
    assert watch.steps == 5
    assert [sample.step for sample in lab.samples] == [0, 2, 4]
    for sample, copy in zip(lab.samples, copies[::2], strict=True):
        lab.agrees(sample, copy)
