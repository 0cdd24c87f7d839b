"""Several optimizers in one environment, coming and going."""

from pathlib import Path

import pytest
import torch

import nissa
from nissa.hub.measurements import StepMeasured
from nissa.testing import Telemetry
from tests.support import points
from tests.toys import Toy

pytestmark = pytest.mark.usefixtures("patient")

MODEL, GROUP = "nissa.model.name", "nissa.parameter_group.index"


def test_when_the_first_optimizer_leaves_the_next_one_counts_the_steps(
    toy: Toy, another_toy: Toy, nissa_telemetry: Telemetry
) -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        first = run.watch(toy.model, toy.optimizer, name="a")
        run.watch(another_toy.model, another_toy.optimizer, name="b")
        for _ in range(2):
            toy.step(run)
            another_toy.step(run)
        first.close()
        another_toy.step(run)
        run.watch(toy.model, toy.optimizer, name="a")
        toy.step(run)
        another_toy.step(run)
        steps = [each for each in nissa_telemetry.measurements if isinstance(each, StepMeasured) and each.primary]
        assert [each.step for each in steps] == [0, 1, 2, 3]


def test_what_was_wrong_with_a_model_is_forgotten_with_it(toy: Toy) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        watch = run.watch(toy.model, toy.optimizer)
        weight = next(toy.model.parameters())
        weight.grad = weight.detach() * float("nan")
        toy.optimizer.step()
        run.flush()
        assert "nonfinite_gradients" in run.validate(loss=1.0).red_flags
        watch.close()
        assert run.validate(loss=1.0).gradient_health is None


def test_two_optimizers_of_one_model_export_the_norm_of_the_whole_and_a_rate_per_group() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    first = torch.optim.SGD([model.weight], lr=0.1)
    second = torch.optim.SGD([{"params": [model.bias], "lr": 0.2}, {"params": [], "lr": 0.3}], lr=0.2)
    norms, losses = [], []
    with nissa.start("diagnostic", run_id="r", console__enabled=False) as run:
        run.watch(model, {"first": first, "second": second})
        for number in range(3):
            model.zero_grad()
            loss = model(torch.full((4, 3), 1.0 + number, dtype=torch.float64)).square().mean()
            loss.backward()
            norms.append(
                torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]).norm()
            )
            first.step()
            second.step()
            run.log_loss(loss)
            losses.append(loss.item())
    folder = Path("nissa-runs/r")
    whole = [p.value for p in points(folder, "nissa.gradient.global_norm") if MODEL not in p.attributes]
    assert whole == pytest.approx([norm.item() for norm in norms], rel=1e-13)
    assert [p.value for p in points(folder, "nissa.loss")] == losses
    assert [p.value for p in points(folder, "nissa.step")] == [0, 1, 2]
    rates = {(p.attributes[MODEL], p.attributes.get(GROUP), p.value) for p in points(folder, "nissa.learning_rate")}
    assert rates == {("first", None, 0.1), ("second", "0", 0.2), ("second", "1", 0.3)}
