"""A watch leaves nothing behind, keeps nothing alive, and lets no fault of its own out."""

import copy
import gc
import logging
import pickle
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from nissa import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab


def model() -> tuple[nn.Linear, SGD]:
    network = nn.Linear(3, 1)
    return network, SGD(network.parameters(), lr=0.1)


def step(network: nn.Module, optimizer: Optimizer) -> None:
    network(torch.randn(2, 3)).sum().backward()
    optimizer.step()


def hooks(optimizer: Any) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def test_close_leaves_no_hook_and_the_optimizer_can_be_watched_again(lab: "Lab") -> None:
    network, optimizer = model()
    optimizer.register_step_post_hook(lambda *_: None)
    watch = lab.env.watch(network, optimizer)
    assert hooks(optimizer) == 3
    step(network, optimizer)
    watch.close()
    watch.close()
    assert hooks(optimizer) == 1
    step(network, optimizer)
    assert len(lab.samples) == 1
    assert lab.env.watch(network, optimizer).steps == 1
    step(network, optimizer)
    assert [sample.step for sample in lab.samples] == [0, 1]


def test_the_end_of_the_session_leaves_no_hook(lab: "Lab") -> None:
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    lab.runtime.stop_watching()
    assert hooks(optimizer) == 0


def test_closing_in_a_closure_lets_the_step_finish(lab: "Lab") -> None:
    network, optimizer = model()
    watch = lab.env.watch(network, optimizer)

    def closure() -> float:
        watch.close()
        return 1.5

    assert optimizer.step(closure) == 1.5
    assert hooks(optimizer) == 0


def test_a_copy_of_a_watched_optimizer_is_not_watched(lab: "Lab") -> None:
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    step(network, optimizer)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):  # noqa: S301 - our own bytes
        assert hooks(twin) == 0
    assert "hooks" not in str(optimizer.state_dict())


def test_nothing_keeps_model_or_optimizer_alive(lab: "Lab") -> None:
    network, optimizer = model()
    watch = lab.env.watch(network, optimizer)
    with lab.env.epoch(0):
        loss = network(torch.randn(2, 3)).sum()
        lab.env.log_loss(loss)
        loss.backward()
        optimizer.step()
        lab.env.validate(loss=1.0)
    lab.flush()
    known: list[weakref.ref[Any]] = [weakref.ref(network), weakref.ref(optimizer), weakref.ref(network.weight)]
    del network, optimizer, loss
    gc.collect()
    assert [each() for each in known] == [None, None, None]
    assert watch.steps == 1


def test_a_loss_that_no_step_follows_keeps_no_graph_alive(lab: "Lab") -> None:
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    lab.env.log_loss(network(torch.randn(2, 3)).sum())
    known = weakref.ref(network.weight)
    del network, optimizer
    gc.collect()
    assert known() is None


def test_an_optimizer_that_is_gone_makes_room_for_the_next(lab: "Lab") -> None:
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    step(network, optimizer)
    del optimizer
    gc.collect()
    successor = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, successor)
    step(network, successor)
    assert len(lab.samples) == len(lab.steps) == 2


def test_a_model_that_is_gone_is_told_once_and_training_goes_on(lab: "Lab", caplog: pytest.LogCaptureFixture) -> None:
    network, optimizer = model()
    lab.env.watch(nn.Sequential(network), optimizer)
    gc.collect()
    with caplog.at_level(logging.WARNING, "nissa"):
        step(network, optimizer)
        step(network, optimizer)
    (record,) = caplog.records
    assert record.getMessage() == (
        "A watched model was freed while its optimizer still steps, so that its gradients are no longer measured. "
        "Keep a reference to the model, because watch() keeps none."
    )
    assert lab.samples == []
    assert len(lab.steps) == 2


@pytest.mark.faults
def test_a_fault_of_the_capture_never_reaches_training(
    lab: "Lab", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("ours")

    network, optimizer = model()
    lab.env.watch(network, optimizer)
    before = network.weight.detach().clone()
    monkeypatch.setattr("nissa.gradients.capture.kernel_for", fail)
    for _ in range(3):
        lab.env.log_loss(1.0)
        step(network, optimizer)
    assert not torch.equal(before, network.weight)
    assert lab.samples == []
    assert [(each.step, each.sampled, each.loss) for each in lab.steps] == [
        (0, False, 1.0),
        (1, False, 1.0),
        (2, False, 1.0),
    ]
    assert lab.hub.error_boundary.faults == {"gradient capture": 3}
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.faults
def test_a_fault_within_a_closure_returns_what_the_closure_returned(
    lab: "Lab", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("ours")

    network, _ = model()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=3)
    lab.env.watch(network, optimizer)
    monkeypatch.setattr("nissa.gradients.capture.kernel_for", fail)

    def closure() -> float:
        optimizer.zero_grad()
        loss = network(torch.ones(2, 3)).square().mean()
        loss.backward()
        return float(loss.detach())

    assert isinstance(optimizer.step(closure), float)  # type: ignore[no-untyped-call]
    assert lab.hub.error_boundary.faults == {"gradient capture": 1}


@pytest.mark.parametrize("loss", ["high", "1.0", torch.ones(3), torch.empty(0), [1.0], None], ids=repr)
def test_a_loss_that_is_no_number_is_absent_and_costs_nothing_else(
    make_lab: "Callable[..., Lab]", caplog: pytest.LogCaptureFixture, loss: Any
) -> None:
    lab = make_lab(strict=False)
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    for _ in range(2):
        lab.env.log_loss(loss)
        step(network, optimizer)
    assert [(each.step, each.loss) for each in lab.steps] == [(0, None), (1, None)]
    assert len(lab.samples) == 2
    assert lab.hub.rejections == {"invalid_value": 2}
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["log_loss()"]


def test_a_strict_run_raises_for_a_loss_that_is_no_number(lab: "Lab") -> None:
    with pytest.raises(InvalidValueError, match=r"^log_loss\(\): takes a number or a tensor of one element, not str"):
        lab.env.log_loss("high")  # type: ignore[arg-type]


@pytest.mark.faults
def test_a_clock_that_fails_costs_the_step_its_record_and_nothing_else(
    lab: "Lab", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise OSError("no clock")

    network, optimizer = model()
    watch = lab.env.watch(network, optimizer)
    with monkeypatch.context() as patched:
        patched.setattr(lab.runtime.clock(None), "now", fail)
        step(network, optimizer)
    step(network, optimizer)
    assert watch.steps == 2
    assert [each.step for each in lab.steps] == [1]


def test_an_exception_of_the_closure_passes_unchanged_and_counts_no_step(lab: "Lab") -> None:
    class OutOfDataError(Exception):
        pass

    raised = OutOfDataError("the user's own")

    def closure() -> float:
        raise raised

    network, optimizer = model()
    watch = lab.env.watch(network, optimizer)
    with pytest.raises(OutOfDataError) as seen:
        optimizer.step(closure)
    assert seen.value is raised
    assert watch.steps == 0
    step(network, optimizer)
    assert [sample.step for sample in lab.samples] == [0]


def test_an_exception_of_step_passes_unchanged_and_counts_no_step(lab: "Lab") -> None:
    class Moody(SGD):
        error: Exception | None = None

        def step(self, closure: Any = None) -> Any:
            if self.error is not None:
                raise self.error
            return super().step(closure)

    network, _ = model()
    optimizer = Moody(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    optimizer.error = KeyError("the user's own")
    with pytest.raises(KeyError) as seen:
        optimizer.step()
    assert seen.value is optimizer.error
    optimizer.error = None
    step(network, optimizer)
    assert watch.steps == 1
    assert [sample.step for sample in lab.samples] == [0]


class OnDevice(torch.Tensor):
    """Stands for a tensor that cannot be read on the host."""


def test_nothing_of_a_step_is_freed_once_the_reader_has_been_told(lab: "Lab", monkeypatch: pytest.MonkeyPatch) -> None:
    network, optimizer = model()
    watch = lab.env.watch(network, optimizer)
    loss = network(torch.ones(2, 3)).sum()
    loss.backward()
    lab.env.log_loss(loss.as_subclass(OnDevice))
    (inputs,) = watch._clock._pending.values()
    assert isinstance(inputs.loss, torch.Tensor)
    kept = weakref.ref(inputs.loss)
    del inputs
    alive: list[bool] = []
    submit = lab.runtime.readback.submit

    def told(*given: Any, **also: Any) -> None:
        alive.append(kept() is not None)
        submit(*given, **also)

    monkeypatch.setattr(lab.runtime.readback, "submit", told)
    optimizer.step()
    assert alive == [False]
    assert len(lab.steps) == 1
