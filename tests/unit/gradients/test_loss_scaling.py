"""Loss scaling: what is seen is what the optimizer uses, and steps that it skips are told as skipped."""

import copy
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import nissa
from nissa.gradients.loss_scaling import ScaledSteps, found_inf_of
from nissa.hub.measurements import StepSkipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

OPTIMIZERS: "dict[str, Callable[..., Optimizer]]" = {
    "plain": lambda parameters: Adam(parameters, lr=0.1, foreach=False),
    "foreach": lambda parameters: AdamW(parameters, lr=0.1, foreach=True),
    "fused": lambda parameters: Adam(parameters, lr=0.1, fused=True),
    "fused-sgd": lambda parameters: SGD(parameters, lr=0.1, fused=True),
}


def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)


def pickled(scaling: torch.amp.GradScaler) -> torch.amp.GradScaler:
    again: torch.amp.GradScaler = pickle.loads(pickle.dumps(scaling))  # noqa: S301 - it is our own
    return again


def train(
    network: nn.Module, optimizer: Optimizer, scaling: torch.amp.GradScaler, *, broken: bool = False
) -> dict[str, torch.Tensor]:
    """Step once; return the gradients without their scale."""
    optimizer.zero_grad()
    loss = network(torch.ones(3, 4)).square().mean()
    torch.autograd.backward(scaling.scale(loss * float("inf") if broken else loss))
    scale = scaling.get_scale()
    truth = {name: p.grad.clone() / scale for name, p in network.named_parameters() if p.grad is not None}
    scaling.step(optimizer)
    scaling.update()
    return truth


def skipped(lab: "Lab") -> list[StepSkipped]:
    lab.flush()
    return [each for each in lab.memory.measurements if isinstance(each, StepSkipped)]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_gradients_are_those_without_the_scale(lab: "Lab", network: nn.Module, kind: str) -> None:
    optimizer, scaling = OPTIMIZERS[kind](network.parameters()), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    truth = [train(network, optimizer, scaling) for _ in range(2)]
    for sample, taken in zip(lab.samples, truth, strict=True):
        lab.agrees(sample, taken)
    assert skipped(lab) == []


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_skipped_step_is_counted_and_is_no_step(lab: "Lab", network: nn.Module, kind: str) -> None:
    optimizer, scaling = OPTIMIZERS[kind](network.parameters()), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    for broken in (False, True, True, False):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        lab.env.log_loss(1.0)
        train(network, optimizer, scaling, broken=broken)
        moved = any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert moved is not broken
    assert len(skipped(lab)) == 2
    assert [step.step for step in lab.steps] == [0, 1]
    assert [sample.step for sample in lab.samples] == [0, 1]
    assert all(sample.moments.nonfinite.sum() == 0 for sample in lab.samples)


@pytest.mark.parametrize("kind", ["fused", "fused-sgd"])
def test_a_fused_optimizer_tells_by_itself(lab: "Lab", network: nn.Module, kind: str) -> None:
    optimizer, scaling = OPTIMIZERS[kind](network.parameters()), scaler()
    lab.env.watch(network, optimizer)
    for broken in (True, False):
        train(network, optimizer, scaling, broken=broken)
    assert len(skipped(lab)) == 1
    assert [step.step for step in lab.steps] == [0]


def test_the_loss_of_a_skipped_step_is_not_that_of_the_next(lab: "Lab", network: nn.Module) -> None:
    optimizer, scaling = SGD(network.parameters(), lr=0.1), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    lab.env.log_loss(9.0)
    train(network, optimizer, scaling, broken=True)
    train(network, optimizer, scaling)
    assert [step.loss for step in lab.steps] == [None]


def test_one_scaler_serves_several_optimizers(lab: "Lab") -> None:
    networks = [nn.Linear(4, 2), nn.Linear(4, 2)]
    optimizers = [SGD(network.parameters(), lr=0.1) for network in networks]
    scaling = scaler()
    for name, network, optimizer in zip("ab", networks, optimizers, strict=True):
        lab.env.watch(network, optimizer, name=name, scaler=scaling)
    train(networks[0], optimizers[0], scaling, broken=True)
    train(networks[1], optimizers[1], scaling)
    assert [each.model_name for each in skipped(lab)] == ["a"]
    assert [step.model_name for step in lab.steps] == ["b"]


def test_a_scaler_that_is_off_skips_nothing(lab: "Lab", network: nn.Module) -> None:
    optimizer, scaling = SGD(network.parameters(), lr=0.1), torch.amp.GradScaler("cpu", enabled=False)
    lab.env.watch(network, optimizer, scaler=scaling)
    train(network, optimizer, scaling)
    assert skipped(lab) == []
    assert len(lab.steps) == 1


def test_closing_leaves_the_scaler_as_it_was(lab: "Lab", network: nn.Module) -> None:
    other = nn.Linear(4, 2)
    optimizer, another, scaling = SGD(network.parameters(), lr=0.1), SGD(other.parameters(), lr=0.1), scaler()
    before = dict(scaling.__dict__)
    first = lab.env.watch(network, optimizer, scaler=scaling)
    second = lab.env.watch(other, another, scaler=scaling, name="other")
    first.close()
    train(network, optimizer, scaling, broken=True)
    assert skipped(lab) == []
    second.close()
    assert set(scaling.__dict__) == set(before)


def test_a_scaler_that_outlives_its_watch_still_steps(lab: "Lab", network: nn.Module) -> None:
    scaling = scaler()
    gone = nn.Linear(4, 2)
    lab.env.watch(gone, SGD(gone.parameters(), lr=0.1), scaler=scaling)
    del gone
    optimizer = SGD(network.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    train(network, optimizer, scaling)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_what_the_optimizer_returns_comes_back(lab: "Lab", network: nn.Module) -> None:
    class Returns(SGD):
        def step(self, closure: object = None) -> str:  # type: ignore[override]
            super().step()
            return f"stepped {closure}"

    optimizer, scaling = Returns(network.parameters(), lr=0.1), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    torch.autograd.backward(scaling.scale(network(torch.ones(3, 4)).square().mean()))
    returned: object = scaling.step(optimizer, 7)
    assert returned == "stepped 7"


@pytest.mark.parametrize("how", [copy.deepcopy, pickled], ids=["copy", "pickle"])
def test_a_copy_of_a_watched_scaler_is_on_its_own(
    lab: "Lab", network: nn.Module, how: "Callable[[torch.amp.GradScaler], torch.amp.GradScaler]"
) -> None:
    optimizer, scaling = SGD(network.parameters(), lr=0.1), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    copied = how(scaling)
    train(network, optimizer, copied, broken=True)
    assert skipped(lab) == []
    train(network, optimizer, scaling, broken=True)
    assert len(skipped(lab)) == 1


def test_what_a_scaler_found_on_several_devices_is_added_up() -> None:
    scaling, optimizer = scaler(), SGD([torch.zeros(1)], lr=0.1)
    assert found_inf_of(scaling, optimizer) is None
    found = {torch.device("cpu"): torch.tensor(0.0), torch.device("cpu", 0): torch.tensor(1.0)}
    scaling._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
    assert found_inf_of(scaling, optimizer) == 1.0


def test_what_is_no_scaler_is_refused(lab: "Lab", network: nn.Module) -> None:
    with pytest.raises(nissa.WatchError, match=r"needs a torch\.amp\.GradScaler, not a float"):
        lab.env.watch(network, SGD(network.parameters(), lr=0.1), scaler=1.0)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_by_hand_of_a_watched_scaler_are_skipped_where_it_skips_them(
    lab: "Lab", network: nn.Module, kind: str
) -> None:
    optimizer, scaling = OPTIMIZERS[kind](network.parameters()), scaler()
    watch = lab.env.watch(network, optimizer, scaler=scaling, hooks=False)
    for broken in (False, True, True, False):
        optimizer.zero_grad()
        loss = network(torch.ones(3, 4)).square().mean()
        torch.autograd.backward(scaling.scale(loss * float("inf") if broken else loss))
        with watch.step():
            scaling.step(optimizer)
        scaling.update()
    assert sum(each.count for each in skipped(lab)) == 2
    assert [step.step for step in lab.steps] == [0, 1]
    assert [step.missed for step in lab.steps] == [0, 0]


def test_a_step_that_is_recorded_into_a_graph_is_not_skipped_and_its_replays_read_where_it_wrote(
    lab: "Lab", network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer, scaling = OPTIMIZERS["fused"](network.parameters()), scaler()
    watch = lab.env.watch(network, optimizer, scaler=scaling, hooks=False)
    with monkeypatch.context() as recording:
        recording.setattr("nissa.gradients.watch.recording", lambda: True)
        train(network, optimizer, scaling)
        found = watch._found_inf_of_graph
    assert found is not None
    for value in (0.0, 1.0, 1.0, 0.0):
        found.fill_(value)  # what a replay does
        with watch.step():
            pass
    assert sum(each.count for each in skipped(lab)) == 2
    assert [step.step for step in lab.steps] == [0, 1]


def test_recording_a_step_with_hooks_skips_nothing(
    lab: "Lab", network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer, scaling = OPTIMIZERS["fused"](network.parameters()), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    monkeypatch.setattr("nissa.gradients.watch.recording", lambda: True)
    monkeypatch.setattr("nissa.gradients.loss_scaling.recording", lambda: True)
    train(network, optimizer, scaling)
    assert skipped(lab) == []
    assert lab.steps == []


def test_another_optimizer_with_the_id_of_one_that_is_gone_is_not_taken_for_it(network: nn.Module) -> None:
    class Gone:
        """A watch whose optimizer was collected, and that nobody has forgotten yet."""

        steps, optimizer, by_hand, skips = 0, None, False, 0

        def skip(self) -> None:
            self.skips += 1

    optimizer, scaling, gone = SGD(network.parameters(), lr=0.1), scaler(), Gone()
    ScaledSteps.of(scaling).add(id(optimizer), gone)
    train(network, optimizer, scaling)
    assert gone.skips == 0


def test_forgetting_a_watch_that_is_gone_leaves_another_one_with_the_same_id(lab: "Lab", network: nn.Module) -> None:
    optimizer, scaling = SGD(network.parameters(), lr=0.1), scaler()
    lab.env.watch(network, optimizer, scaler=scaling)
    ScaledSteps.of(scaling).remove(id(optimizer), object())
    train(network, optimizer, scaling, broken=True)
    assert len(skipped(lab)) == 1
