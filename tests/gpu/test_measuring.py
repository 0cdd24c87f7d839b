"""Validations and sharpness on a device: adding up never waits, and training is what it is without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.profiler import ProfilerActivity, profile

from nissa import ValidationMeter
from nissa.config import SharpnessConfig
from nissa.diagnostics.sharpness import SharpnessProbe
from tests.integration.whole_training import frozen

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "foreach Adam": lambda p: Adam(p, foreach=True),
    "fused Adam": lambda p: Adam(p, fused=True),
    "capturable AdamW": lambda p: AdamW(p, lr=torch.tensor(0.01, device="cuda"), capturable=True),
}
CONFIG = SharpnessConfig(enabled=True, every_n_epochs=1, budget_milliseconds=60_000)


@pytest.mark.usefixtures("no_waits")
def test_adding_a_batch_does_not_wait(network: nn.Module) -> None:
    meter = ValidationMeter(2, ignore_index=-100)
    x, targets = torch.zeros(16, 4, device="cuda"), torch.zeros(16, dtype=torch.long, device="cuda")
    for _ in range(3):
        logits = network(x)
        meter.update(logits, targets, nn.functional.cross_entropy(logits, targets))
        meter.update(logits, targets, nn.functional.cross_entropy(logits, targets, reduction="none"))


def test_a_validation_leaves_the_device_in_one_copy() -> None:
    meter = ValidationMeter(3)
    meter.update(torch.tensor([0, 1, 2, 9]).cuda(), torch.tensor([0, 2, 2, 1]).cuda(), 1.5)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        measured = meter.result()
    assert len([each for each in seen.events() or () if "DtoH" in each.name]) == 1
    assert measured.accuracy == pytest.approx(2 / 3)
    assert (measured.loss, measured.out_of_range) == (1.5, 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_is_measured_is_the_bare_one(name: str) -> None:
    assert trained(OPTIMIZERS[name], measured=True) == trained(OPTIMIZERS[name], measured=False)


def trained(make: Callable[[Any], Optimizer], *, measured: bool) -> list[Any]:
    """Return all that a training leaves behind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2)).cuda()
    optimizer, probe = make(model.parameters()), SharpnessProbe(CONFIG)
    for _ in range(4):
        x = torch.randn(16, 4, device="cuda")
        optimizer.zero_grad()
        torch.autograd.backward(model(x).square().mean())
        if measured:
            found = probe.measure(model, optimizer, lambda: model(x).square().mean())  # noqa: B023 - called at once
            assert found is not None
            assert set(found.values) == {"critical", "average_case"}
        optimizer.step()
    state = [each.cpu() for each in model.state_dict().values()]
    moments = [each.cpu() for of in optimizer.state.values() for each in of.values() if isinstance(each, torch.Tensor)]
    return [frozen(each) for each in (*state, *moments, torch.cuda.get_rng_state(), torch.get_rng_state())]
