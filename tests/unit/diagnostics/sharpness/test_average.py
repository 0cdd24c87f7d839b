import math
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nissa import ConfigurationError
from nissa.config import SharpnessConfig
from nissa.diagnostics.sharpness import SharpnessProbe, average_case, compiled
from nissa.diagnostics.sharpness.directions import Directions
from tests.unit.diagnostics.sharpness.networks import Clock, Quadratic, classifier, timeless


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace and vectorise without generating code, which takes half a minute."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    yield
    torch.compiler.reset()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return Nissa's warnings, without the traces that torch logs."""
    return [each.getMessage() for each in caplog.records if each.name == "nissa"]


def expected(model: Quadratic, scale: float) -> float:
    """Return the expectation at the minimum: there, for a quadratic, the second order is all there is."""
    traces = torch.stack([model.hessian[:4, :4].trace() / 4, model.hessian[4:, 4:].trace() / 3])
    norms = torch.stack([model.first.detach().norm(), model.second.detach().norm()])
    return float(scale / 2 * (norms**2 * traces).sum())


@pytest.mark.parametrize("compiled", [False, True], ids=["loop", "compiled"])
def test_at_the_minimum_of_a_quadratic_it_is_what_the_trace_says(compiled: bool) -> None:
    model = Quadratic(at_minimum=True)
    found = average_case(model, model, samples=400, scale=0.01, compiled=compiled)
    assert found.value is not None
    assert found.standard_error is not None
    assert found.standard_error < 0.1 * found.value
    assert abs(found.value - expected(model, 0.01)) < 4 * found.standard_error
    assert (found.evaluations, found.complete, found.reason) == (401 + compiled, True, None)


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
def test_one_compiled_call_equals_the_loop(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model, closure = classifier(kind)
    before = [each.clone() for each in model.parameters()]
    one = average_case(model, closure, samples=4)
    other = average_case(model, closure, samples=4, compiled=True)
    assert one.value is not None
    assert other.value == pytest.approx(one.value, rel=5e-3)
    assert other.standard_error == pytest.approx(one.standard_error, rel=5e-3)
    assert other.evaluations == one.evaluations + 1  # the unchanged weights, compiled
    assert all(each.equal(kept) for each, kept in zip(model.parameters(), before, strict=True))
    assert messages(caplog) == []


@pytest.mark.full
def test_generated_code_equals_the_loop(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    model, closure = classifier("mlp")
    one, other = (average_case(model, closure, samples=2, compiled=each).value for each in (False, True))
    assert other == pytest.approx(one, rel=5e-3)
    assert messages(caplog) == []


def test_a_compilation_serves_later_closures_of_the_same_code() -> None:
    model, closure = classifier("mlp")
    torch._dynamo.utils.counters.clear()
    for _ in range(3):
        assert average_case(model, lambda: closure() * 1, samples=3, compiled=True).complete
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


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
    first, second = (average_case(model, closure, directions=drawn, compiled=True).value for _ in range(2))
    assert first == pytest.approx(average_case(model, closure).value, rel=5e-3)
    assert second != first


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


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("hook", "hooks"),
        ("float", "Unsupported"),
        ("branch", "Unsupported"),
        ("lstm", "Unsupported"),
        ("noise", "random numbers"),
        ("large", "exceed 0 MB"),
    ],
)
def test_what_cannot_be_compiled_is_measured_one_by_one(
    kind: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, closure = classifier("lstm" if kind == "lstm" else "mlp")
    given = {
        "float": lambda: closure().item(),
        "branch": lambda: closure() if closure() > -1 else torch.zeros(()),
        "noise": lambda: closure() + torch.rand(()),
    }.get(kind, closure)
    seen: list[torch.Tensor] = []
    if kind == "hook":
        model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    if kind == "large":
        monkeypatch.setattr(compiled, "MAX_STACKED_BYTES", 8)
    one = average_case(model, given, samples=3)
    other = average_case(model, given, samples=3, compiled=True)
    assert timeless(one) == timeless(other)
    assert not any(torch._C._functorch.is_batchedtensor(each) for each in seen)
    (message,) = messages(caplog)
    assert reason in message


def test_a_failing_compiler_is_tried_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def fail(graph: object, _: object) -> None:
        tried.append(graph)
        raise RuntimeError

    monkeypatch.setattr(compiled, "BACKEND", fail)
    model, closure = classifier("mlp")
    probe = SharpnessProbe(SharpnessConfig(methods=("average_case",), compile=True, budget_milliseconds=60_000))
    measured = [probe.measure(model, None, closure) for _ in range(3)]
    assert all(each is not None and each.methods[0].complete for each in measured)
    assert len(tried) == 1
    (message,) = messages(caplog)
    assert message.startswith("Sharpness is measured without compilation")


def test_a_failed_compilation_does_not_spend_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, closure = classifier("mlp")
    slow = Clock(monkeypatch, closure, 1 / 64)

    def fail(_graph: object, _inputs: object) -> None:
        slow.now += 24
        raise RuntimeError

    monkeypatch.setattr(compiled, "BACKEND", fail)
    assert average_case(model, slow, samples=3, budget=10 / 64, compiled=True).complete


def test_a_loss_that_takes_its_weights_from_elsewhere_is_measured_where_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Linear(3, 1)
    weight, bias, x = model.weight, model.bias, torch.randn(5, 3)
    found = average_case(model, lambda: nn.functional.linear(x, weight, bias).square().mean(), compiled=True)
    assert found.value is not None
    assert found.value > 0
    (message,) = messages(caplog)
    assert "does not read its weights from the model" in message


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


def test_the_loop_measures_what_the_budget_allows_where_one_call_would_exceed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, closure = classifier("mlp")
    slow = Clock(monkeypatch, closure, 1 / 64)
    assert average_case(model, slow, samples=50, budget=10 / 64, compiled=True).evaluations == 10


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
