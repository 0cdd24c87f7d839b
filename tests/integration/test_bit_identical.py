"""A whole training, with everything that we offer in its loop, is bit for bit what it is without us."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nissa
from nissa.config.files import PROFILES
from tests.integration.whole_training import EPOCHS, OPTIMIZERS, SCALED, STEPS, Make, Script, Step, frozen, train
from tests.support import points


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [what for what in {**one, **other} if one.get(what) != other.get(what)]


def watched(profile: str, make: Make, *, scaled: bool) -> dict[str, Any]:
    sharpness = {"enabled": True, "every_n_epochs": 1, "samples": 2, "budget_milliseconds": 200}
    with nissa.start(profile, run_id="run", console__enabled=False, sharpness=sharpness) as run:
        found = train(Script(run), make, scaled=scaled)
        assert any(each.sharpness for each in run.history)
    return found


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_watched_training_is_the_bare_one(name: str, profile: str) -> None:
    bare = train(Script(None), OPTIMIZERS[name], scaled=False)
    assert differences(bare, watched(profile, OPTIMIZERS[name], scaled=False)) == []
    steps = [point.value for point in points(Path("nissa-runs/run"), "nissa.step")]
    assert max(steps) == EPOCHS * STEPS - 1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", SCALED)
def test_a_watched_training_with_a_scaled_loss_is_the_bare_one(name: str, profile: str) -> None:
    bare = train(Script(None), SCALED[name], scaled=True)
    assert differences(bare, watched(profile, SCALED[name], scaled=True)) == []
    (skipped,) = {point.value for point in points(Path("nissa-runs/run"), "nissa.step.skipped")}
    assert skipped == 1


def test_gradients_keep_their_objects_and_their_layout() -> None:
    found = watched("research", OPTIMIZERS["adam fused"], scaled=False)
    kept = [each for what, each in found.items() if what.startswith("the same objects")]
    assert len(kept) == EPOCHS * STEPS
    assert all(all(each.values()) for each in kept)
    _, shape, stride, *_ = found["after of step (0, 0)"]["convolution.weight"]
    assert (shape, stride) == ((6, 3, 3, 3), (27, 1, 9, 3))


def _relayout(step: Step) -> None:
    weight = step.network.get_parameter("convolution.weight")
    assert weight.grad is not None
    weight.grad = weight.grad.contiguous()


DISTURBANCES: dict[str, tuple[str, Callable[[Step], Any]]] = {
    "weights": ("parameter head.bias", lambda step: step.network.get_parameter("head.bias").data.mul_(1 + 2**-23)),
    "optimizer": ("optimizer", lambda step: step.optimizer.param_groups[0].update(lr=0.010000000000000002)),
    "torch": ("torch's random numbers", lambda _: torch.rand(1)),
    "numpy": ("numpy's random numbers", lambda _: np.random.random()),  # noqa: NPY002 - the global state is the point
    "random": ("Python's random numbers", lambda _: random.random()),  # noqa: S311 - as above
    "mode": ("modes of step (0, 0)", lambda step: step.network.get_submodule("drop").eval()),
    "trained": ("parameter frozen.bias", lambda step: step.network.get_submodule("frozen").requires_grad_()),
    "layout": ("after of step (0, 0)", _relayout),
}


@pytest.mark.parametrize("what", DISTURBANCES)
def test_the_comparison_sees(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = train(Script(None), OPTIMIZERS["adam foreach"], scaled=False)
    assert differences(bare, train(Script(None), OPTIMIZERS["adam foreach"], scaled=False)) == []
    seen_by, disturb = DISTURBANCES[what]
    monkeypatch.setattr(Step, "step", lambda step: (step.optimizer.step(), disturb(step)))
    assert seen_by in differences(bare, train(Script(None), OPTIMIZERS["adam foreach"], scaled=False))


def test_what_is_frozen_is_compared_by_its_bits() -> None:
    nan = torch.tensor([float("nan")])
    assert frozen(nan) == frozen(nan.clone())
    assert frozen(torch.tensor([0.0])) != frozen(torch.tensor([-0.0]))
    assert frozen([0.0]) != frozen([-0.0])
    assert frozen(torch.ones(2)) != frozen(torch.ones(2, dtype=torch.float64))
    assert frozen({"a": torch.ones(2, 3)}) != frozen({"a": torch.ones(3, 2).T})
