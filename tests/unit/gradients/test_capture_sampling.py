"""Which steps are sampled, and several optimizers beside each other."""

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from nissa import WatchError
from nissa.gradients.capture import Measures
from nissa.gradients.selection import Selection
from nissa.gradients.step_metadata import SamplingPlan
from nissa.kernels.moments import Layout, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab


def sampling(every_n_steps: int) -> SamplingPlan:
    return SamplingPlan(
        every_n_steps=every_n_steps,
        selection=Selection("all"),
        measures=Measures(layout=Layout(), thresholds=Thresholds()),
    )


def model() -> tuple[nn.Linear, SGD]:
    network = nn.Linear(3, 1)
    return network, SGD(network.parameters(), lr=0.1)


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.randn(2, 3)).sum().backward()
    optimizer.step()


@given(every=st.integers(1, 1000), step_number=st.integers(0, 10**9))
def test_whether_a_step_is_sampled_follows_from_its_number_alone(every: int, step_number: int) -> None:
    assert sampling(every).wants(step_number) is (step_number % every == 0)


def test_zero_samples_nothing() -> None:
    assert not any(sampling(0).wants(number) for number in range(10))


def test_every_nth_step_is_sampled_and_every_step_is_told(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__every_n_steps=4)
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    for _ in range(9):
        step(network, optimizer)
    assert [sample.step for sample in lab.samples] == [0, 4, 8]
    assert [each.step for each in lab.steps] == list(range(9))
    assert [each.step for each in lab.steps if each.sampled] == [0, 4, 8]


def test_the_minimal_profile_tells_steps_and_reads_no_gradient(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab("minimal")
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    step(network, optimizer)
    assert lab.samples == []
    assert [each.sampled for each in lab.steps] == [False]
    assert lab.env.validate(loss=1.0).gradient_health is None


def test_a_step_counts_from_when_it_is_watched(lab: "Lab") -> None:
    network, optimizer = model()
    step(network, optimizer)
    watch = lab.env.watch(network, optimizer)
    step(network, optimizer)
    assert watch.steps == 1
    assert [each.step for each in lab.steps] == [0]


def test_two_optimizers_in_one_environment_need_names(lab: "Lab") -> None:
    first, second = model(), model()
    lab.env.watch(*first)
    with pytest.raises(WatchError, match=r"call watch\(model, optimizer, name=\.\.\.\) with a name other than None"):
        lab.env.watch(*second)


def test_two_optimizers_in_one_environment_are_told_apart_and_the_first_counts_the_steps(lab: "Lab") -> None:
    generator, critic = model(), model()
    lab.env.watch(*generator, name="generator")
    lab.env.watch(*critic, name="critic")
    step(*generator)
    step(*critic)
    step(*critic)
    found = [(sample.model_name, sample.step) for sample in lab.samples]
    assert found == [("generator", 0), ("critic", 0), ("critic", 1)]
    assert [(each.primary, each.step) for each in lab.steps] == [(True, 0), (False, 0), (False, 1)]


def test_the_worst_model_of_an_environment_is_its_health(lab: "Lab") -> None:
    fine, broken = model(), model()
    lab.env.watch(*fine, name="fine")
    lab.env.watch(*broken, name="broken")
    step(*fine)
    broken[0].weight.grad = torch.full((1, 3), float("nan"))
    broken[1].step()
    step(*fine)
    snapshot = lab.env.validate(loss=1.0)
    assert snapshot.gradient_health is not None
    assert snapshot.gradient_health.nonfinite == ("weight",)


def test_percentiles_of_a_snapshot_are_the_median_over_layers(lab: "Lab") -> None:
    network = nn.ParameterDict({name: torch.zeros(2) for name in "abc"})
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    assert lab.env.validate(loss=1.0).gradient_percentiles == {}
    for name, value in zip("abc", (1.0, 2.0, 64.0), strict=True):
        network[name].grad = torch.full((2,), value)
    optimizer.step()
    found = lab.env.validate(loss=1.0).gradient_percentiles
    assert found.keys() == {1.0, 25.0, 50.0, 75.0, 99.0}
    assert list(found.values()) == pytest.approx([2.0] * 5, rel=0.05)


def test_environments_share_nothing(lab: "Lab") -> None:
    first, second = lab.environment("0"), lab.environment("1")
    one, two = model(), model()
    first.watch(*one)
    second.watch(*two)
    first.log_loss(1.0)
    second.log_loss(2.0)
    step(*two)
    step(*one)
    step(*two)
    found = {env: [(each.step, each.loss) for each in lab.steps if each.env_id == env] for env in ("0", "1")}
    assert found == {"0": [(0, 1.0)], "1": [(0, 2.0), (1, None)]}
    assert sorted(str(sample.env_id) for sample in lab.samples) == ["0", "1", "1"]


def test_an_optimizer_is_watched_once(lab: "Lab") -> None:
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    with pytest.raises(
        WatchError, match=r"is watched already, .* close\(\) the handle that the first watch\(\) returned"
    ):
        lab.environment("1").watch(network, optimizer, name="again")


@pytest.mark.parametrize(
    ("network", "optimizer", "message"),
    [
        (object(), model()[1], r"needs a torch\.nn\.Module, not a object"),
        (model()[1], model()[0], r"needs a torch\.nn\.Module, not a SGD"),
        (model()[0], "adam", r"needs the torch\.optim\.Optimizer .* not a str; call watch\(model, optimizer\)"),
        (model()[0], model()[1], r"has none of the parameters of Linear.*Build it from model\.parameters\(\)"),
    ],
    ids=["no module", "swapped", "no optimizer", "of another model"],
)
def test_what_cannot_be_watched_is_refused_with_what_to_do(
    lab: "Lab", network: nn.Module, optimizer: torch.optim.Optimizer, message: str
) -> None:
    with pytest.raises(WatchError, match=message):
        lab.env.watch(network, optimizer)
