"""Loops that log the loss of a step after that step: the loss belongs to it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nissa.gradients.loss_order import LossOrder
from tests.unit.gradients.conftest import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab(limits__validation_wait_seconds=10)
    yield made
    made.close()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1).double()


INPUTS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def loss_of(network: nn.Module, batch: int = 0) -> torch.Tensor:
    loss: torch.Tensor = (network(INPUTS + batch / 10) - 1).square().mean()
    return loss


def exported(lab: Lab) -> list[tuple[int, float | None]]:
    return [(step.step, step.loss) for step in lab.steps if step.primary]


def plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_of(network, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@pytest.mark.parametrize("first", [0, 3], ids=["every loss", "those from the fourth step on"])
@pytest.mark.parametrize("sampled", [True, False])
def test_the_losses_that_lbfgs_returns_belong_to_their_steps(network: nn.Module, sampled: bool, first: int) -> None:
    lab = Lab("diagnostic" if sampled else "minimal")
    optimizer = torch.optim.LBFGS(network.parameters(), lr=0.05, max_iter=2)
    lab.env.watch(network, optimizer)
    truth: list[tuple[int, float | None]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(network)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for number in range(20):
        truth.append((number, loss_of(network).item() if number >= first else None))
        loss = optimizer.step(closure)  # type: ignore[no-untyped-call]
        if number >= first:
            lab.env.log_loss(loss)
    assert exported(lab) == truth
    lab.close()


def test_losses_logged_after_the_step_of_a_plain_loop_belong_to_it(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    truth: list[float] = []
    for epoch in range(2):
        with lab.env.epoch(epoch):
            for batch in range(5):
                loss = plain_step(network, optimizer, batch)
                lab.env.log_loss(loss)
                truth.append(loss.item())
            snapshot = lab.env.validate(loss=1.0)
            assert snapshot.train_loss == pytest.approx(sum(truth[-5:]) / 5, rel=1e-12)
            assert snapshot.gradient_health is not None
    assert exported(lab) == list(enumerate(truth))
    assert [sample.step for sample in lab.samples] == list(range(10))


def test_a_loss_before_the_step_belongs_to_the_next_step_as_ever(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for batch in range(3):
        loss = loss_of(network, batch)
        lab.env.log_loss(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lab.env.log_loss(100.0)  # averaged with the loss of the next step
    first, *others = exported(lab)
    assert first[1] is not None
    assert first[1] < 10
    assert all(loss is not None and 50 < loss < 60 for _, loss in others)


def test_several_losses_after_a_step_are_averaged(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for batch in range(3):
        plain_step(network, optimizer, batch)
        lab.env.log_loss(1.0 + batch)
        lab.env.log_loss(torch.tensor(3.0 + batch))
    assert exported(lab) == [(0, 2.0), (1, 3.0), (2, 4.0)]


def test_every_second_loss_after_its_step_belongs_to_it(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for batch in range(5):
        plain_step(network, optimizer, batch)
        if batch % 2 == 0:
            lab.env.log_loss(float(batch))
    assert exported(lab) == [(0, 0.0), (1, None), (2, 2.0), (3, None), (4, 4.0)]


def test_a_loop_that_changes_to_losses_before_steps_is_followed(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    with lab.env.epoch(0):
        for batch in range(2):
            plain_step(network, optimizer, batch)
            lab.env.log_loss(float(batch))
    with lab.env.epoch(1):
        lab.env.log_loss(10.0)
        plain_step(network, optimizer, 0)
        lab.env.log_loss(11.0)
        plain_step(network, optimizer, 1)
    assert exported(lab) == [(0, 0.0), (1, 1.0), (2, 10.0), (3, 11.0)]


def test_a_loss_whose_row_was_sent_by_a_validation_is_averaged_with_the_next(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for batch in range(4):
        plain_step(network, optimizer, batch)
        if batch == 1:
            lab.env.validate(loss=1.0)
        lab.env.log_loss(float(batch))
    assert exported(lab) == [(0, 0.0), (1, None), (2, 1.5), (3, 3.0)]


def test_a_step_before_the_loop_decides_nothing_if_somebody_waits_for_it(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    plain_step(network, optimizer, 0)
    lab.flush()
    for batch in range(3):
        lab.env.log_loss(float(batch))
        plain_step(network, optimizer, batch)
    assert exported(lab) == [(0, None), (1, 0.0), (2, 1.0), (3, 2.0)]


def test_a_loss_after_a_skipped_step_is_dropped_with_it(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    lab.env.watch(network, optimizer, scaler=scaler)
    for batch in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(network, batch) * (torch.inf if batch == 2 else 1.0)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        lab.env.log_loss(float(batch))
    assert exported(lab) == [(0, 0.0), (1, 1.0), (2, 3.0)]


def test_rows_of_several_watches_stay_in_order_while_one_waits_for_its_loss(lab: Lab) -> None:
    networks = [nn.Linear(3, 1), nn.Linear(3, 1)]
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in networks]
    for name, network, optimizer in zip("ab", networks, optimizers, strict=True):
        lab.env.watch(network, optimizer, name=name)
    for number in range(3):
        for network, optimizer in zip(networks, optimizers, strict=True):
            network(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        lab.env.log_loss(float(number))
        lab.env.log_loss(number + 0.5, model="b")
    assert [(step.model_name, step.step, step.loss) for step in lab.steps] == [
        (name, number, number + half) for number in range(3) for name, half in (("a", 0.0), ("b", 0.5))
    ]


class OnDevice(torch.Tensor):
    """Stands for a tensor that cannot be read on the host."""


def test_a_loss_on_a_device_that_follows_its_step_is_read_with_it(lab: Lab, network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for batch in range(3):
        plain_step(network, optimizer, batch)
        total = torch.tensor(float(batch)).as_subclass(OnDevice)
        lab.env.log_loss(total)
        total.fill_(9.0)
    assert exported(lab) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_the_last_row_of_a_loop_that_pauses_is_sent_by_the_worker(
    lab: Lab, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nissa.gradients.readback._HOLD_SECONDS", 0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    plain_step(network, optimizer, 0)
    readback = lab.runtime.readback
    readback.poll()
    assert not readback._held
    lab.env.log_loss(5.0)
    plain_step(network, optimizer, 1)
    assert exported(lab) == [(0, None), (1, 5.0)]


@pytest.mark.parametrize(
    ("events", "after"),
    [
        ("LSLSLS", False),
        ("SLSLSL", True),
        ("SSSLSSSL", False),
        ("CLCL", True),
        ("CCCLCCC", True),
        ("LCLC", False),
        ("S", None),
        ("SS", False),
    ],
)
def test_the_order_is_decided_by_the_first_loss(events: str, after: Any) -> None:
    order, logged, waits = LossOrder(), False, False
    for event in events:
        if event == "L":
            logged = not (waits and order.logged_after())
        else:
            waits, logged = order.stepped(logged=logged, closure=event == "C"), False
    assert order.after is after
