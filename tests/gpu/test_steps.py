"""Watched steps on a device: nothing waits, one copy leaves it, and the numbers are those that the optimizer used."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.profiler import ProfilerActivity, profile

from nissa.hub.measurements import StepSkipped
from tests.gpu.training import backward, on_host, taken

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab

STEPS = 4

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "foreach Adam": lambda p: Adam(p, foreach=True),
    "fused Adam": lambda p: Adam(p, fused=True),
    "capturable Adam": lambda p: Adam(p, lr=torch.tensor(0.01, device="cuda"), capturable=True),
    "capturable AdamW": lambda p: AdamW(p, capturable=True, foreach=False),
}


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.linspace(-1, 1, 64).reshape(16, 4).cuda()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_those_that_the_optimizer_used(
    lab: "Lab", network: nn.Module, inputs: torch.Tensor, name: str
) -> None:
    optimizer = OPTIMIZERS[name](list(network.parameters()))
    lab.env.watch(network, optimizer)
    copies, losses = [], []
    for _ in range(STEPS):
        loss = backward(network, inputs)
        copies.append(taken(network))
        losses.append(loss.detach())
        lab.env.log_loss(loss)
        optimizer.step()
    assert [step.loss for step in lab.steps] == [float(loss) for loss in losses]
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, on_host(copy))


def test_losses_that_are_logged_after_their_steps_belong_to_them(
    lab: "Lab", network: nn.Module, inputs: torch.Tensor
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    losses = []
    for _ in range(STEPS):
        total = backward(network, inputs).detach().clone()
        optimizer.step()
        lab.env.log_loss(total)
        losses.append(float(total))
        total.zero_()
    assert [(step.step, step.loss) for step in lab.steps] == list(enumerate(losses))


@pytest.mark.parametrize("profile_name", ["minimal", "standard", "diagnostic", "research"])
def test_nothing_waits_on_the_training_thread(
    make_lab: "Callable[..., Lab]", network: nn.Module, inputs: torch.Tensor, profile_name: str
) -> None:
    lab = make_lab(profile_name)
    optimizer = SGD(network.parameters(), lr=0.1, foreach=True)
    backward(network, inputs)
    optimizer.step()  # what torch sets up at first may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for watching in (False, True):  # the bare loop passes, so that a wait would be ours
            if watching:
                lab.env.watch(network, optimizer)
            for _ in range(STEPS):
                loss = backward(network, inputs)
                lab.env.clip_grad_norm_(network.parameters(), 1.0)
                lab.env.log_loss(loss)
                optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(lab.steps) == STEPS
    assert lab.hub.error_boundary.faults == {}


def test_the_debug_mode_finds_a_wait(no_waits: None) -> None:
    del no_waits
    with pytest.raises(RuntimeError, match="synchron"):
        torch.ones(1, device="cuda").item()


def copies_to_the_host(network: nn.Module, optimizer: Optimizer, inputs: torch.Tensor, lab: "Lab") -> int:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            loss = backward(network, inputs)
            lab.env.log_loss(loss)
            optimizer.step()
        torch.cuda.synchronize()
        lab.flush()
    return sum(event.name.startswith("Memcpy DtoH") for event in seen.events() or ())


@pytest.mark.parametrize("profile_name", ["diagnostic", "research"])
def test_one_copy_leaves_the_device_for_each_sampled_step(
    make_lab: "Callable[..., Lab]", network: nn.Module, inputs: torch.Tensor, profile_name: str
) -> None:
    lab = make_lab(profile_name)
    optimizer = SGD(network.parameters(), lr=0.1)
    bare = copies_to_the_host(network, optimizer, inputs, lab)
    lab.env.watch(network, optimizer)
    backward(network, inputs)
    optimizer.step()  # makes the tables of the kernel
    lab.flush()
    assert copies_to_the_host(network, optimizer, inputs, lab) - bare == STEPS
    assert len(lab.samples) == STEPS + 1


def test_a_fused_optimizer_that_skips_is_no_step(lab: "Lab", network: nn.Module, inputs: torch.Tensor) -> None:
    optimizer = Adam(network.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=1000)
    lab.env.watch(network, optimizer, scaler=scaler)
    copies = []
    for broken in (False, True, False):
        optimizer.zero_grad()
        loss = network(inputs).square().mean()
        torch.autograd.backward(scaler.scale(loss * float("inf") if broken else loss))
        if not broken:
            copies.append({name: gradient / scaler.get_scale() for name, gradient in taken(network).items()})
        before = [parameter.detach().clone() for parameter in network.parameters()]
        scaler.step(optimizer)
        scaler.update()
        moved = any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert moved is not broken
    lab.flush()
    assert sum(isinstance(each, StepSkipped) for each in lab.memory.measurements) == 1
    assert [step.step for step in lab.steps] == [0, 1]
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, on_host(copy))


def test_parameters_on_several_devices_share_a_sample(lab: "Lab", inputs: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"host": nn.Linear(4, 4), "device": nn.Linear(4, 2).cuda()})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    copies = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = network["device"](network["host"](inputs.cpu()).cuda()).square().mean()
        loss.backward()
        copies.append(on_host(taken(network)))
        lab.env.log_loss(loss)
        optimizer.step()
    assert len(lab.steps) == STEPS
    for sample, copy in zip(lab.samples, copies, strict=True):
        lab.agrees(sample, copy)


def test_training_is_the_same_with_and_without_a_watch(
    make_lab: "Callable[..., Lab]", network: nn.Module, inputs: torch.Tensor
) -> None:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    found = []
    for watched in (False, True):
        network.load_state_dict(start)
        torch.cuda.manual_seed(1)
        optimizer = Adam(network.parameters(), fused=True)
        if watched:
            make_lab("research").env.watch(network, optimizer)
        for _ in range(STEPS):
            backward(network, nn.functional.dropout(inputs, 0.5))
            optimizer.step()
        found.append([*(each.detach().clone() for each in network.parameters()), torch.cuda.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
