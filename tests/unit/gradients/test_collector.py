from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import nissa

if TYPE_CHECKING:
    from tests.unit.gradients.conftest import Lab

FORMS: dict[str, tuple[Callable[[nn.Module], Any], tuple[str, ...]]] = {
    "a module": (lambda m: m, ("0.weight", "0.bias", "2.weight", "2.bias")),
    "its named parameters": (lambda m: m.named_parameters(), ("0.weight", "0.bias", "2.weight", "2.bias")),
    "a list of named parameters": (lambda m: list(m.named_parameters()), ("0.weight", "0.bias", "2.weight", "2.bias")),
    "its parameters": (lambda m: m.parameters(), ("0", "1", "2", "3")),
    "a list": (lambda m: list(m.parameters()), ("0", "1", "2", "3")),
    "a generator": (lambda m: (each for each in m.parameters() if each.dim() > 1), ("0", "1")),
}


class Busy:
    def query(self) -> bool:
        return False


@pytest.fixture
def trained(network: nn.Module) -> nn.Module:
    network(torch.randn(5, 4)).square().sum().backward()
    return network


@pytest.mark.parametrize(("form", "names"), FORMS.values(), ids=FORMS)
def test_parameters_come_in_every_form(
    trained: nn.Module, form: Callable[[nn.Module], Any], names: Iterable[str]
) -> None:
    found = nissa.collect_gradients(form(trained)).result()
    assert found.names == names
    everything = [each.grad for each in trained.parameters() if each.grad is not None]
    chosen = everything if len(found.names) == 4 else [each for each in everything if each.dim() > 1]
    assert found.moments.norm == pytest.approx([float(each.double().norm()) for each in chosen], rel=1e-12)


def test_a_lone_parameter_is_fine(trained: nn.Sequential) -> None:
    found = nissa.collect_gradients(trained[0].weight).result()
    assert found.names == ("0",)
    assert found.moments.count.tolist() == [32]


def test_without_gradients_the_result_is_empty_and_has_no_health(network: nn.Module) -> None:
    found = nissa.collect_gradients(network).result()
    assert (found.names, len(found.moments)) == ((), 0)
    assert (found.health.score, found.health.global_norm, found.health.layers) == (None, None, 0)
    assert nissa.collect_gradients([]).result().names == ()


def test_parameters_without_a_gradient_are_absent(trained: nn.Sequential) -> None:
    trained[0].weight.grad = None
    assert nissa.collect_gradients(trained).result().names == ("0.bias", "2.weight", "2.bias")
    assert nissa.collect_gradients(trained.parameters()).result().names == ("1", "2", "3")


def test_a_parameter_given_twice_is_there_once(trained: nn.Sequential) -> None:
    weight: Any = trained[0].weight
    assert nissa.collect_gradients([weight, weight]).result().names == ("0",)


def test_the_norm_is_the_global_one_and_not_a_mean() -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    found = nissa.collect_gradients(parameters).result()
    assert found.health.global_norm == 5.0
    assert found.moments.norm.tolist() == [3.0, 4.0]


def test_it_agrees_with_what_a_watch_sees(lab: "Lab", trained: nn.Module) -> None:
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    lab.env.watch(trained, optimizer)
    found = nissa.collect_gradients(trained).result()
    optimizer.step()
    (sample,) = lab.samples
    assert found.names == sample.names
    assert found.health == sample.health
    np.testing.assert_array_equal(found.moments.norm, sample.moments.norm)
    np.testing.assert_array_equal(found.moments.quantile(0.5), sample.moments.quantile(0.5))


def test_what_happens_to_the_gradients_afterwards_does_not_matter(trained: nn.Module) -> None:
    expected = nissa.collect_gradients(trained).result().moments.norm
    pending = nissa.collect_gradients(trained)
    for parameter in trained.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
    np.testing.assert_array_equal(pending.result().moments.norm, expected)


def test_on_the_host_a_result_is_done_at_once_and_can_be_asked_for_again(trained: nn.Module) -> None:
    pending = nissa.collect_gradients(trained)
    assert pending.done()
    assert pending.result(timeout=0).names == pending.result().names


def test_a_result_that_is_not_there_is_not_done_and_times_out(trained: nn.Module) -> None:
    pending = nissa.collect_gradients(trained)
    pending._transfer._events.append(Busy())
    assert not pending.done()
    with pytest.raises(TimeoutError):
        pending.result(timeout=0.01)


def test_statistics_are_looked_up_by_name(trained: nn.Sequential) -> None:
    found = nissa.collect_gradients(trained).result()
    gradient: Any = trained[2].bias.grad
    assert found["2.bias"].norm.tolist() == pytest.approx([float(gradient.double().norm())])
    with pytest.raises(nissa.UnknownNameError, match=r"Unknown parameter with a gradient '3\.bias'\. Did you mean"):
        found["3.bias"]


def test_without_a_histogram_there_are_no_quantiles(trained: nn.Module) -> None:
    moments = nissa.collect_gradients(trained, histogram=False).result().moments
    assert moments.buckets is None
    assert np.isnan(moments.quantile(0.5)).all()


def test_thresholds_are_those_of_the_caller() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([0.0, 0.1, 1.0, 10.0])
    found = nissa.collect_gradients([parameter], vanishing_threshold=0.5, exploding_threshold=5.0).result()
    assert found["0"].vanishing_fraction.tolist() == [0.5]
    assert found["0"].exploding_fraction.tolist() == [0.25]
    assert found.health.exploding == ("0",)


@pytest.mark.parametrize("name", ["vanishing_threshold", "exploding_threshold"])
def test_a_threshold_that_cannot_be_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {name: -1.0}
    with pytest.raises(nissa.ConfigurationError, match="must be 0 or more"):
        nissa.collect_gradients([], **arguments)


def test_names_of_a_compiled_module_are_those_of_the_network(trained: nn.Module) -> None:
    compiled: Any = torch.compile(trained, backend="eager")
    assert nissa.collect_gradients(compiled).result().names == ("0.weight", "0.bias", "2.weight", "2.bias")
