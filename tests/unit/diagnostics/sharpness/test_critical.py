import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nissa.diagnostics.sharpness import Sharpness, critical
from tests.unit.diagnostics.sharpness.networks import Clock, Closure, Quadratic, classifier

EXACT = 1e-6
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.001),
    "momentum": lambda p: SGD(p, lr=0.001, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: Adam(p, lr=0.001),
    "adamw foreach": lambda p: AdamW(p, lr=0.001, foreach=True, weight_decay=0.1),
    "adamw fused": lambda p: AdamW(p, lr=0.001, fused=True),
    "adam with a rate in a tensor": lambda p: Adam(p, lr=torch.tensor(0.001), foreach=False),
    "rmsprop": lambda p: RMSprop(p, lr=0.001),
    "adagrad": lambda p: Adagrad(p, lr=0.001),
}


def trained(closure: Closure, optimizer: Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        closure().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def actual_step(model: nn.Module, closure: Closure, optimizer: Optimizer) -> torch.Tensor:
    """Step for good; return what it added to the weights."""
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    trained(closure, optimizer, 1)
    return nn.utils.parameters_to_vector(model.parameters()).detach() - before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_for_a_quadratic_it_is_the_curvature_along_the_update_over_its_slope(name: str) -> None:
    model = Quadratic()
    optimizer = OPTIMIZERS[name](model.parameters())
    trained(model, optimizer)
    found = critical(model, optimizer, model, tolerance=EXACT)
    gradient, matrix, lr = model.gradient, model.hessian, 0.001
    direction = -actual_step(model, model, optimizer) / lr
    expected = float(direction @ matrix @ direction / (gradient @ direction))
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.stability_margin == pytest.approx(lr * expected / 2, rel=1e-5)
    assert found.bounds is not None
    assert found.bounds[0] <= expected * (1 + EXACT)
    assert expected <= found.bounds[1] * (1 + EXACT)
    assert found.standard_error is None


def test_for_gradient_descent_along_the_sharpest_direction_it_is_the_largest_eigenvalue() -> None:
    model = Quadratic()
    values, vectors = torch.linalg.eigh(model.hessian)
    model.minimum.copy_(model.weights.detach() - vectors[:, -1])
    found = critical(model, SGD(model.parameters(), lr=0.01), model, tolerance=EXACT)
    assert found.value == pytest.approx(float(values[-1]), rel=1e-5)


def test_it_is_never_above_the_largest_eigenvalue_for_gradient_descent() -> None:
    model = Quadratic()
    top = float(torch.linalg.eigvalsh(model.hessian)[-1])
    for _ in range(5):
        value = critical(model, SGD(model.parameters(), lr=0.01), model).value
        assert value is not None
        assert 0 < value <= top * 1.05
        trained(model, SGD(model.parameters(), lr=0.5 / top), 2)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_for_a_small_network_it_is_what_its_hessian_says(name: str) -> None:
    """Holds where the loss is nearly quadratic out to the critical rate: the last, linear layer, with squared error."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    model[0].requires_grad_(requires_grad=False)
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()

    def closure() -> torch.Tensor:
        loss: torch.Tensor = (model(x) - y).square().mean()
        return loss

    optimizer = OPTIMIZERS[name](model[2].parameters())
    found = critical(model, optimizer, closure, tolerance=EXACT)
    weights = {key: each.detach().clone() for key, each in model[2].named_parameters()}

    def loss_of(flat: torch.Tensor) -> torch.Tensor:
        split = {"weight": flat[:4].view(1, 4), "bias": flat[4:]}
        loss: torch.Tensor = (functional_call(model[2], split, (model[:2](x),)) - y).square().mean()
        return loss

    flat = torch.cat([each.flatten() for each in weights.values()])
    matrix, gradient = hessian(loss_of)(flat), torch.func.grad(loss_of)(flat)
    step = actual_step(model[2], closure, optimizer) / -0.001
    assert found.value == pytest.approx(float(step @ matrix @ step / (gradient @ step)), rel=1e-4)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gpt", "lstm"])
def test_the_critical_rate_is_where_the_loss_begins_to_rise(kind: str) -> None:
    model, closure = classifier(kind)
    model.eval()
    optimizer = SGD(model.parameters(), lr=0.1)
    found = critical(model, optimizer, closure)
    assert found.bounds is not None
    before = closure().item()
    rises = []
    for value in found.bounds:
        kept = {name: each.clone() for name, each in model.state_dict().items()}
        optimizer.param_groups[0]["lr"] = 2 / value
        trained(closure, optimizer, 1)
        rises.append(closure().item() > before)
        model.load_state_dict(kept)
    assert rises == [True, False]
    assert found.evaluations < 25


def test_weights_of_half_precision_move_in_full_precision_on_the_way() -> None:
    model, closure = classifier("mlp", torch.bfloat16)
    other, full = classifier("mlp")
    value = critical(model, SGD(model.parameters(), lr=1.0), closure).value
    assert value == pytest.approx(critical(other, SGD(other.parameters(), lr=1.0), full).value, rel=0.3)


def test_a_search_that_begins_where_it_will_end_takes_few_evaluations() -> None:
    model, closure = classifier("mlp")
    optimizer = SGD(model.parameters(), lr=1e-4)
    far = critical(model, optimizer, closure)
    assert far.stability_margin is not None
    near = critical(model, optimizer, closure, start=1 / far.stability_margin)
    assert near.evaluations <= 7 < far.evaluations
    assert near.value == pytest.approx(far.value, rel=0.1)


def test_the_rate_itself_does_not_matter_but_for_the_margin() -> None:
    model, closure = classifier("mlp")
    small = critical(model, SGD(model.parameters(), lr=0.01), closure, tolerance=EXACT)
    large = critical(model, SGD(model.parameters(), lr=1.0), closure, tolerance=EXACT)
    assert small.stability_margin is not None
    assert large.value == pytest.approx(small.value, rel=1e-3)
    assert large.stability_margin == pytest.approx(100 * small.stability_margin, rel=1e-3)


def test_an_update_uphill_raises_the_loss_at_any_rate() -> None:
    model = Quadratic()
    found = critical(model, SGD(model.parameters(), lr=0.001, maximize=True), model)
    assert (found.value, found.stability_margin, found.bounds) == (math.inf, math.inf, (math.inf, math.inf))


def _nothing(model: Quadratic) -> tuple[Optimizer, Closure]:
    return SGD(model.parameters(), lr=0.0), model


def _elsewhere(model: Quadratic) -> tuple[Optimizer, Closure]:
    return SGD([nn.Parameter(torch.zeros(2))], lr=0.1), model


def _downhill(model: Quadratic) -> tuple[Optimizer, Closure]:
    return SGD(model.parameters(), lr=0.1), lambda: model.first.sum() + model.second.sum()


def _closure(model: Quadratic) -> tuple[Optimizer, Closure]:
    return LBFGS(model.parameters(), lr=0.1), model


def _number(model: Quadratic) -> tuple[Optimizer, Closure]:
    return SGD(model.parameters(), lr=0.1), lambda: model().item()


def _broken(model: Quadratic) -> tuple[Optimizer, Closure]:
    return SGD(model.parameters(), lr=0.1), lambda: model() * torch.nan


def _minimum(model: Quadratic) -> tuple[Optimizer, Closure]:
    model.minimum.copy_(model.weights.detach())
    return SGD(model.parameters(), lr=0.1), model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_nothing, "learning rate is 0"),
        (_elsewhere, "does not depend on what the optimizer trains"),
        (_downhill, "is not within"),
        (_closure, "cannot step by itself"),
        (_number, "knows no gradient"),
        (_broken, "not finite"),
        (_minimum, "does not move the weights"),
    ],
    ids=["no rate", "elsewhere", "downhill", "closure", "number", "broken", "minimum"],
)
def test_where_there_is_none_it_says_why(make: Callable[[Quadratic], tuple[Optimizer, Closure]], said: str) -> None:
    model = Quadratic()
    optimizer, closure = make(model)
    before = model.weights.detach().clone()
    found = critical(model, optimizer, closure)
    assert found.value is None
    assert found.reason is not None
    assert said in found.reason
    assert model.weights.equal(before)


def test_no_hook_sees_the_step_of_the_copy() -> None:
    model, closure = classifier("mlp")
    optimizer = Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    trained(closure, optimizer, 1)
    scheduler.step()
    calls: list[str] = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_post_hook(lambda *_: calls.append("after")),
        register_optimizer_step_pre_hook(lambda *_: calls.append("before all")),
        register_optimizer_step_post_hook(lambda *_: calls.append("after all")),
        *(each.register_hook(lambda _: calls.append("gradient")) for each in model.parameters()),  # type: ignore[no-untyped-call]
        *(each.register_post_accumulate_grad_hook(lambda _: calls.append("kept")) for each in model.parameters()),  # type: ignore[no-untyped-call]
    ]
    try:
        assert critical(model, optimizer, closure).value is not None
        assert calls == []
        trained(closure, optimizer, 1)
        assert {"before", "after", "before all", "after all", "gradient", "kept"} == set(calls)
    finally:
        for handle in handles:
            handle.remove()


def test_the_budget_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    model, closure = classifier("mlp")
    slow = Clock(monkeypatch, closure, 1 / 64)
    optimizer = SGD(model.parameters(), lr=1e-5)
    found = critical(model, optimizer, slow, budget=10 / 64)
    assert (found.value, found.complete, found.reason) == (None, False, "the budget did not suffice to find it")
    assert found.evaluations == 9  # the gradient takes the time of the tenth
    begun = critical(model, SGD(model.parameters(), lr=10.0), slow, budget=15 / 64, tolerance=1e-9)
    assert begun.value is not None
    assert not begun.complete
    assert begun.evaluations == 14
    assert critical(model, optimizer, slow, budget=1.5 / 64).evaluations == 1


def test_it_is_measured_in_inference_mode_too() -> None:
    model, closure = classifier("mlp")
    optimizer = SGD(model.parameters(), lr=0.1)
    with torch.inference_mode():
        inside: Sharpness = critical(model, optimizer, closure)
    assert inside.value == critical(model, optimizer, closure).value
