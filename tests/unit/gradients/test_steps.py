from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import SGD

from nissa.events import SpanIds
from nissa.gradients.steps import StepClock
from nissa.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

EPOCH, NEXT_EPOCH = SpanIds(1, 2), SpanIds(3, 4)
SECOND = 1_000_000_000


@pytest.fixture
def clock() -> StepClock:
    return StepClock("env", FakeClock())


@pytest.fixture
def trained() -> tuple[nn.Linear, SGD]:
    network = nn.Linear(2, 1)
    return network, SGD(network.parameters(), lr=0.1)


def test_the_first_step_of_an_epoch_has_no_duration(clock: StepClock) -> None:
    clock.begin_epoch(EPOCH)
    assert [clock.lap(at * SECOND) for at in (10, 12, 15)] == [None, 2.0, 3.0]


def test_time_between_epochs_is_no_duration(clock: StepClock) -> None:
    clock.begin_epoch(EPOCH)
    clock.lap(10 * SECOND)
    clock.end_epoch()
    clock.begin_epoch(NEXT_EPOCH)
    assert clock.epoch_ids == NEXT_EPOCH
    assert clock.lap(100 * SECOND) is None
    assert clock.lap(101 * SECOND) == 1.0


def test_outside_epochs_there_are_durations_too(clock: StepClock) -> None:
    assert [clock.lap(at * SECOND) for at in (1, 2)] == [None, 1.0]
    clock.begin_epoch(EPOCH)
    clock.end_epoch()
    assert [clock.lap(at * SECOND) for at in (3, 7)] == [None, 4.0]


def test_the_step_after_a_validation_has_no_duration(clock: StepClock) -> None:
    clock.lap(SECOND)
    clock.interrupt()
    assert clock.last == SECOND
    assert [clock.lap(at * SECOND) for at in (50, 51)] == [None, 1.0]


def test_no_time_at_all_is_a_duration_of_zero(clock: StepClock) -> None:
    clock.begin_epoch(EPOCH)
    clock.lap(SECOND)
    assert clock.lap(SECOND) == 0.0


def test_a_clock_that_was_set_back_measures_nothing(clock: StepClock) -> None:
    clock.begin_epoch(EPOCH)
    clock.lap(10 * SECOND)
    assert clock.lap(4 * SECOND) is None
    assert clock.lap(5 * SECOND) == 1.0


def test_a_loss_is_taken_once_and_several_are_averaged(clock: StepClock) -> None:
    assert clock.take(None, primary=True).loss is None
    clock.log_loss(1.0)
    clock.log_loss(torch.tensor(0.0))
    clock.log_loss(2, scale=4)
    assert clock.take(None, primary=True).loss == 3.0
    assert clock.take(None, primary=True).loss is None


def test_a_loss_is_the_value_at_the_call(clock: StepClock) -> None:
    class OnDevice(torch.Tensor):
        """Stands for a tensor that cannot be read on the host."""

    total, divided = torch.tensor(8.0).as_subclass(OnDevice), torch.tensor(8.0)
    clock.log_loss(total, "device")
    clock.log_loss(divided, "host")
    total.zero_()
    divided /= 4
    assert clock.take("device", primary=False).loss == 8.0
    assert clock.take("host", primary=False).loss == 8.0


def test_a_loss_that_is_kept_has_left_its_graph(clock: StepClock) -> None:
    class OnDevice(torch.Tensor):
        """As above."""

    clock.log_loss(torch.ones(1, requires_grad=True).as_subclass(OnDevice).sum())
    loss = clock.take(None, primary=True).loss
    assert isinstance(loss, torch.Tensor)
    assert loss.grad_fn is None


@pytest.mark.parametrize(
    "loss",
    [0.25, torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25, dtype=torch.bfloat16), torch.tensor(0.25).double()],
    ids=["float", "tensor", "tensor of one element", "bfloat16", "float64"],
)  # fmt: skip
def test_every_form_of_a_loss_arrives_as_the_number_it_is(
    lab: "Lab", trained: tuple[nn.Linear, SGD], loss: torch.Tensor | float
) -> None:
    lab.env.watch(*trained)
    lab.env.log_loss(loss)
    trained[1].step()
    assert [step.loss for step in lab.steps] == [0.25]


@pytest.mark.parametrize("form", [float, torch.tensor], ids=["float", "tensor"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite_arrives_as_it_is(
    make_lab: "Callable[..., Lab]", trained: tuple[nn.Linear, SGD], form: type[float], value: str
) -> None:
    lab = make_lab(limits__validation_wait_seconds=10)  # on a busy machine the reader may take longer than usual
    lab.env.watch(*trained)
    with lab.env.epoch(0):
        lab.env.log_loss(form(float(value)))
        trained[1].step()
        snapshot = lab.env.validate(loss=1.0)
    assert str(lab.steps[0].loss) == str(snapshot.train_loss) == value
    assert "nonfinite_loss" in snapshot.red_flags


def test_a_step_without_a_loss_has_none_and_a_loss_of_zero_is_one(lab: "Lab", trained: tuple[nn.Linear, SGD]) -> None:
    lab.env.watch(*trained)
    for loss in (torch.tensor(0.0), None, 0.0):
        if loss is not None:
            lab.env.log_loss(loss)
        trained[1].step()
    assert [step.loss for step in lab.steps] == [0.0, None, 0.0]


def test_a_loss_that_is_changed_after_the_step_was_its_value_at_the_step(
    lab: "Lab", trained: tuple[nn.Linear, SGD]
) -> None:
    lab.env.watch(*trained)
    loss = torch.tensor(1.0, dtype=torch.float64)
    lab.env.log_loss(loss)
    trained[1].step()
    loss.fill_(9.0)
    assert [step.loss for step in lab.steps] == [1.0]


def test_durations_and_epochs_of_a_loop(lab: "Lab", trained: tuple[nn.Linear, SGD]) -> None:
    lab.env.watch(*trained)
    for epoch in range(2):
        with lab.env.epoch(epoch):
            for _ in range(3):
                lab.clock.advance(0.5)
                trained[1].step()
        lab.clock.advance(60)
    assert [step.duration for step in lab.steps] == [None, 0.5, 0.5] * 2
    spans = [step.epoch_ids.span_id for step in lab.steps if step.epoch_ids]
    assert [spans.count(span) for span in dict.fromkeys(spans)] == [3, 3]


def test_the_train_loss_of_an_epoch_is_the_mean_of_its_own_steps(lab: "Lab", trained: tuple[nn.Linear, SGD]) -> None:
    lab.env.watch(*trained)
    found = []
    epochs: list[list[torch.Tensor | float]] = [[1.0, 2.0], [torch.tensor(4.0), 0.0], [], [0.0]]
    for epoch, losses in enumerate(epochs):
        with lab.env.epoch(epoch):
            for loss in losses:
                lab.env.log_loss(loss)
                trained[1].step()
            found.append(lab.env.validate(loss=1.0).train_loss)
    assert found == [1.5, 2.0, None, 0.0]


def test_losses_of_models_that_never_step_are_bounded(clock: StepClock) -> None:
    for number in range(5_000):
        clock.log_loss(1.0, f"model-{number}")
    assert len(clock._pending) == 1_000
    assert clock.take("model-4999", primary=False).loss == 1.0
    assert clock.take("model-0", primary=False).loss is None


def test_what_was_said_of_a_model_that_is_no_longer_watched_is_dropped(clock: StepClock) -> None:
    clock.log_loss(1.0, "model")
    clock.forget("model")
    assert clock.take("model", primary=False).loss is None
