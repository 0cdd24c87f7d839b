import math

import pytest
import torch
from torch import nn

from nissa import ConfigurationError
from nissa.diagnostics.sharpness import average_case
from nissa.diagnostics.sharpness.directions import Directions
from tests.unit.diagnostics.sharpness.networks import Clock, Quadratic, classifier, timeless


def expected(model: Quadratic, scale: float) -> float:
    """Return the expectation at the minimum: there, for a quadratic, the second order is all there is."""
    traces = torch.stack([model.hessian[:4, :4].trace() / 4, model.hessian[4:, 4:].trace() / 3])
    norms = torch.stack([model.first.detach().norm(), model.second.detach().norm()])
    return float(scale / 2 * (norms**2 * traces).sum())


@pytest.mark.parametrize("vectorised", [False, True], ids=["loop", "together"])
def test_at_the_minimum_of_a_quadratic_it_is_what_the_trace_says(vectorised: bool) -> None:
    model = Quadratic(at_minimum=True)
    found = average_case(model, model, samples=400, scale=0.01, vectorised=vectorised)
    assert found.value is not None
    assert found.standard_error is not None
    assert found.standard_error < 0.1 * found.value
    assert abs(found.value - expected(model, 0.01)) < 4 * found.standard_error
    assert (found.evaluations, found.complete, found.reason) == (401, True, None)


def test_the_error_says_how_far_off_few_samples_are() -> None:
    model = Quadratic(at_minimum=True)
    truth = expected(model, 0.01)
    inside = 0
    for seed in range(100):
        found = average_case(model, model, samples=20, directions=Directions(seed))
        assert found.value is not None
        assert found.standard_error is not None
        inside += abs(found.value - truth) < 2.1 * found.standard_error
    assert 85 <= inside <= 99


def test_it_grows_with_the_square_of_the_weights_at_a_minimum() -> None:
    small, large = Quadratic(at_minimum=True), Quadratic(at_minimum=True, times=3)
    one, other = average_case(small, small, samples=10), average_case(large, large, samples=10)
    assert one.value is not None
    assert other.value == pytest.approx(9 * one.value, rel=1e-3)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gpt"])
def test_both_ways_look_in_the_same_directions(kind: str) -> None:
    model, closure = classifier(kind)
    one = average_case(model, closure, samples=4)
    other = average_case(model, closure, samples=4, vectorised=True)
    assert one.value is not None
    assert other.value == pytest.approx(one.value, rel=2e-2)
    assert other.evaluations == 5


def test_one_sample_has_no_error() -> None:
    model, closure = classifier("mlp")
    found = average_case(model, closure, samples=1)
    assert found.value is not None
    assert found.standard_error is None


def test_directions_are_the_same_every_time_and_differ_by_seed() -> None:
    model, closure = classifier("mlp")
    assert timeless(average_case(model, closure)) == timeless(average_case(model, closure))
    kept = Directions(1)
    one, other = (average_case(model, closure, directions=kept).value for _ in range(2))
    assert one == other != average_case(model, closure).value


def test_directions_that_are_too_large_to_keep_are_drawn_each_time() -> None:
    model, closure = classifier("mlp")
    drawn = Directions(0, max_kept_bytes=0)
    first, second = (average_case(model, closure, directions=drawn, vectorised=True).value for _ in range(2))
    assert first == average_case(model, closure).value != second


def test_directions_are_drawn_anew_for_a_network_that_has_grown() -> None:
    model, closure = classifier("mlp")
    kept = Directions()
    average_case(model, closure, directions=kept)
    assert isinstance(model, nn.Sequential)
    model.append(nn.Linear(10, 10))
    assert average_case(model, closure, directions=kept).complete


def test_frozen_weights_stay_where_they_are() -> None:
    model = Quadratic(at_minimum=True)
    both = average_case(model, model, samples=50).value
    model.second.requires_grad = False
    seen = []

    def closure() -> torch.Tensor:
        seen.append(model.second.detach().clone())
        loss: torch.Tensor = model()
        return loss

    found = average_case(model, closure, samples=50).value
    assert found != both
    assert all(each.equal(model.second) for each in seen)


@pytest.mark.parametrize("kind", ["hook", "float", "branch", "lstm"])
def test_what_cannot_be_done_together_is_done_one_by_one(kind: str) -> None:
    model, closure = classifier("lstm" if kind == "lstm" else "mlp")
    given = {
        "float": lambda: closure().item(),
        "branch": lambda: closure() if closure() > -1 else torch.zeros(()),
    }.get(kind, closure)
    seen: list[torch.Tensor] = []
    if kind == "hook":
        model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    one = average_case(model, given, samples=3)
    other = average_case(model, given, samples=3, vectorised=True)
    assert timeless(one) == timeless(other)
    assert not any(torch._C._functorch.is_batchedtensor(each) for each in seen)


def test_a_loss_that_takes_its_weights_from_elsewhere_is_measured_where_they_are() -> None:
    model = nn.Linear(3, 1)
    weight, bias, x = model.weight, model.bias, torch.randn(5, 3)
    found = average_case(model, lambda: nn.functional.linear(x, weight, bias).square().mean(), vectorised=True)
    assert found.value is not None
    assert found.value > 0


def test_a_loss_that_leaves_the_numbers_is_found() -> None:
    model, closure = classifier("cnn")
    model.eval()
    before = closure().item()
    found = average_case(model, lambda: closure() if closure().item() == before else torch.tensor(math.inf))
    assert found.value == math.inf
    assert found.standard_error is None


def test_the_budget_ends_it_and_what_was_measured_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, closure = classifier("mlp")
    slow = Clock(monkeypatch, closure, 1 / 64)
    found = average_case(model, slow, samples=100, budget=10 / 64)
    assert (found.evaluations, found.complete) == (10, False)
    assert found.value is not None
    assert found.standard_error is not None
    assert average_case(model, slow, samples=9, budget=10 / 64).complete
    none = average_case(model, slow, samples=100, budget=1.5 / 64)
    assert (none.value, none.evaluations, none.complete) == (None, 1, False)
    assert none.reason is not None


def test_what_the_budget_does_not_allow_together_is_done_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, closure = classifier("mlp")
    slow = Clock(monkeypatch, closure, 1 / 64)
    assert average_case(model, slow, samples=50, budget=10 / 64, vectorised=True).evaluations == 10


@pytest.mark.parametrize(
    "loss", [lambda: torch.zeros(3), lambda: "low", lambda: None], ids=["several", "text", "nothing"]
)
def test_a_closure_that_returns_no_number_is_refused(loss: object) -> None:
    model, _ = classifier("mlp")
    with pytest.raises(ConfigurationError, match="The closure must return"):
        average_case(model, loss)  # type: ignore[arg-type]  # that is the point


def test_a_network_without_a_shape_yet_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without a shape"):
        average_case(nn.LazyLinear(3), lambda: 1.0)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no weights"):
        average_case(nn.ReLU(), lambda: 1.0)
