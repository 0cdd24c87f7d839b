import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import nissa
from nissa.config import SharpnessConfig
from nissa.diagnostics.sharpness import SharpnessMeasured, SharpnessProbe
from nissa.diagnostics.sharpness import compiled as compiled_evaluation
from nissa.diagnostics.sharpness.random_states import RandomStates
from tests.integration.whole_training import frozen
from tests.unit.diagnostics.sharpness.networks import Quadratic, classifier

ON = SharpnessConfig(enabled=True, every_n_epochs=1, samples=3, budget_milliseconds=60_000)
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: Adam(p, lr=0.01, amsgrad=True),
    "adamw fused": lambda p: AdamW(p, lr=0.01, fused=True),
}
Use = Callable[[nn.Module, Optimizer, int], None]


class WildError(RuntimeError):
    pass


def network() -> nn.Module:
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    made = nn.Sequential(*layers, nn.Linear(6, 6), nn.Linear(6, 4))
    made[6].requires_grad_(requires_grad=False)
    made[3].eval()  # somebody has set it so
    return made


def train(use: Use, make: Callable[[Any], Optimizer], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Return all that a training leaves behind in which something is done between backward pass and step."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    model = network().to(dtype)
    optimizer = make([each for each in model.parameters() if each.requires_grad])
    found: dict[str, Any] = {}
    for number in range(6):
        optimizer.zero_grad()
        x = torch.randn(8, 3, 6, 6, dtype=dtype) * (1 + random.random())  # noqa: S311 - the user's state
        loss = nn.functional.cross_entropy(model(x), torch.randint(0, 4, (8,)))
        hidden = model(x).sum()  # a graph that is still needed, and holds the weights
        loss.backward()  # type: ignore[no-untyped-call]
        objects = [id(each.grad) for each in model.parameters()]
        use(model, optimizer, number)
        assert [id(each.grad) for each in model.parameters()] == objects
        (hidden * 1e-3).backward()
        optimizer.step()
        found[f"gradients {number}"] = frozen([each.grad for each in model.parameters() if each.grad is not None])
        found[f"modes {number}"] = [each.training for each in model.modules()]
        found[f"random {number}"] = np.random.random()  # noqa: NPY002 - the user's state
    found["weights"] = frozen(dict(model.named_parameters()))
    found["buffers"] = frozen(dict(model.named_buffers()))
    found["optimizer"] = frozen(optimizer.state_dict())
    found["random"] = (frozen(torch.get_rng_state()), random.getstate(), frozen(np.random.get_state()))  # noqa: NPY002
    return found


def nothing(model: nn.Module, optimizer: Optimizer, number: int) -> None:
    del model, optimizer, number


def loss_of(model: nn.Module, *, fails_at: int | None = None, value: float = 1.0) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x, y = torch.randn(8, 3, 6, 6, generator=generator).to(dtype), torch.arange(8) % 4
    calls = iter(range(10_000))

    def closure() -> torch.Tensor:
        with torch.no_grad():
            torch.rand(1), np.random.random(), random.random()  # noqa: NPY002, S311 - the user's states
            model[1].running_mean.add_(1.0)  # type: ignore[index]  # a sequence of layers
        if next(calls) == fails_at:
            raise WildError
        return nn.functional.cross_entropy(model(x), y) * value

    return closure


def probing(config: SharpnessConfig = ON, **how: Any) -> tuple[Use, list[SharpnessMeasured]]:
    probe, found = SharpnessProbe(config), []

    def use(model: nn.Module, optimizer: Optimizer, number: int) -> None:
        del number
        try:
            measured = probe.measure(model, optimizer, loss_of(model, **how))
        except WildError:
            return
        assert measured is not None
        found.append(measured)

    return use, found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float", "bfloat"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_is_measured_is_the_bare_one(name: str, dtype: torch.dtype) -> None:
    use, found = probing()
    assert train(use, OPTIMIZERS[name], dtype) == train(nothing, OPTIMIZERS[name], dtype)
    assert len(found) == 6
    assert all(each.evaluations > 5 for each in found)


@pytest.mark.parametrize("fails_at", [0, 1, 2, 4, 8], ids=["base", "gradient", "search", "later", "much later"])
def test_a_closure_that_raises_leaves_no_trace(fails_at: int) -> None:
    use, found = probing(fails_at=fails_at)
    assert train(use, OPTIMIZERS["adam"]) == train(nothing, OPTIMIZERS["adam"])
    assert found == []


@pytest.mark.parametrize("fails_at", [0, 1, 3], ids=["base", "first", "last"])
def test_a_closure_that_raises_among_random_directions_leaves_no_trace(fails_at: int) -> None:
    use, found = probing(ON.model_copy(update={"methods": ("average_case",)}), fails_at=fails_at)
    assert train(use, OPTIMIZERS["sgd"]) == train(nothing, OPTIMIZERS["sgd"])
    assert found == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_is_measured_by_compiled_calls_is_the_bare_one(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled_evaluation, "BACKEND", "eager")
    probe = SharpnessProbe(ON.model_copy(update={"compile": True}))
    x, y = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4
    found = []

    def use(model: nn.Module, optimizer: Optimizer, number: int) -> None:
        del number
        found.append(probe.measure(model, optimizer, lambda: nn.functional.cross_entropy(model(x), y)))

    assert train(use, OPTIMIZERS[name]) == train(nothing, OPTIMIZERS[name])
    assert all(each is not None and list(each.values) == ["critical", "average_case"] for each in found)
    assert not [each for each in caplog.records if each.name == "nissa"]
    torch.compiler.reset()


def test_a_loss_that_is_no_number_leaves_no_trace() -> None:
    use, found = probing(value=float("nan"))
    assert train(use, OPTIMIZERS["adam"]) == train(nothing, OPTIMIZERS["adam"])
    assert len(found) == 6


def _by_adding(model: nn.Module, optimizer: Optimizer, number: int) -> None:
    del optimizer, number
    for each in model.parameters():
        each.data.add_(0.1)
        each.data.sub_(0.1)


@pytest.mark.parametrize(
    "disturb",
    [
        _by_adding,
        lambda *_: torch.rand(1),
        lambda *_: random.random(),  # noqa: S311 - the user's state
        lambda *_: np.random.random(),  # noqa: NPY002 - the user's state
        lambda model, *_: model.eval(),
        lambda model, *_: model[1].running_mean.data.add_(1e-3),
        lambda _, optimizer, __: optimizer.param_groups[0].update(lr=0.011),
    ],
    ids=["weights", "torch", "python", "numpy", "mode", "buffer", "optimizer"],
)
def test_the_comparison_sees(disturb: Use) -> None:
    assert train(disturb, OPTIMIZERS["adam"]) != train(nothing, OPTIMIZERS["adam"])


def test_every_evaluation_has_the_same_random_numbers() -> None:
    model, drawn = nn.Linear(2, 2), []

    def closure() -> torch.Tensor:
        drawn.append((torch.rand(1).item(), np.random.random(), random.random()))  # noqa: NPY002, S311 - the user's
        loss: torch.Tensor = model(torch.ones(3, 2)).square().mean()
        return loss

    assert SharpnessProbe(ON).measure(model, SGD(model.parameters(), lr=0.1), closure) is not None
    assert len(drawn) > 8
    assert len(set(drawn)) == 1


@pytest.mark.parametrize("which", ["torch", "numpy", "python"])
def test_each_random_state_is_seen_to_change(which: str) -> None:
    kept = RandomStates([torch.device("cpu")])
    assert not kept.changed()
    draws: dict[str, Callable[[], object]] = {
        "torch": lambda: torch.rand(1),
        "numpy": np.random.random,
        "python": random.random,
    }
    draws[which]()
    assert kept.changed()
    kept.restore()
    assert not kept.changed()


def test_within_a_measurement_the_model_is_in_evaluation_mode_and_has_no_gradients() -> None:
    model, closure = classifier("mlp")
    closure().backward()  # type: ignore[no-untyped-call]
    seen = []

    def looking() -> torch.Tensor:
        seen.append((model.training, *(each.grad for each in model.parameters())))
        return closure()

    SharpnessProbe(ON).measure(model, None, looking)
    assert set(seen) == {(False, None, None, None, None)}
    assert model.training


def test_what_was_found_is_there_by_method() -> None:
    model = Quadratic()
    measured = SharpnessProbe(ON).measure(model, SGD(model.parameters(), lr=0.01), model)
    assert measured is not None
    assert list(measured.values) == ["critical", "average_case"]
    assert list(measured.errors) == ["average_case"]
    assert measured.stability_margin == pytest.approx(0.01 * measured.values["critical"] / 2)
    assert measured.evaluations == sum(each.evaluations for each in measured.methods) - 1
    assert measured.seconds > 0


def test_only_what_is_asked_for_is_measured() -> None:
    model = Quadratic()
    optimizer = SGD(model.parameters(), lr=0.01)
    one = SharpnessProbe(SharpnessConfig(methods=("average_case",))).measure(model, optimizer, model)
    other = SharpnessProbe(ON).measure(model, None, model)
    assert one is not None
    assert other is not None
    assert list(one.values) == list(other.values) == ["average_case"]
    assert one.stability_margin is None


def test_it_is_due_every_so_often() -> None:
    probe = SharpnessProbe(SharpnessConfig(enabled=True, every_n_epochs=3))
    assert [probe.due(epoch) for epoch in range(7)] == [True, False, False, True, False, False, True]
    assert [probe.due(None) for _ in range(4)] == [True, False, False, True]
    assert not SharpnessProbe(SharpnessConfig()).due(0)


def test_where_there_is_no_value_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Quadratic()
    probe = SharpnessProbe(ON)
    for _ in range(3):
        measured = probe.measure(model, SGD(model.parameters(), lr=0.0), model)
        assert measured is not None
        assert list(measured.values) == ["average_case"]
    assert caplog.text.count("the learning rate is 0") == 1


def test_a_model_that_cannot_be_measured_is_absent_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    probe = SharpnessProbe(ON)
    for _ in range(3):
        assert probe.measure(nn.LazyLinear(2), None, lambda: 1.0) is None
    assert caplog.text.count("Sharpness is not measured") == 1


def test_a_watch_does_not_see_the_measurement() -> None:
    model, closure = classifier("mlp")
    optimizer = Adam(model.parameters(), lr=0.01)
    with nissa.start("research", console__enabled=False) as run:
        handle = run.watch(model, optimizer)
        probe = SharpnessProbe(ON)
        for _ in range(3):
            optimizer.zero_grad()
            closure().backward()  # type: ignore[no-untyped-call]
            assert probe.measure(model, optimizer, closure) is not None
            optimizer.step()
        assert handle.steps == 3


@pytest.mark.parametrize("compile_losses", [False, True], ids=["loop", "compiled"])
def test_a_compiled_model_is_measured_without_being_compiled_again(
    compile_losses: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled_evaluation, "BACKEND", "eager")
    config = ON.model_copy(update={"compile": compile_losses})
    model, _ = classifier("mlp")
    x, compiled = torch.randn(4, 6), []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    fast: Any = torch.compile(model, backend=backend)
    optimizer = SGD(model.parameters(), lr=0.1)
    fast(x)
    assert len(compiled) == 1
    measured = SharpnessProbe(config).measure(fast, optimizer, lambda: fast(x).square().mean())
    assert measured is not None
    assert list(measured.values) == ["critical", "average_case"]
    fast(x)
    assert len(compiled) == 1
    assert ("wrapped by torch.compile()" in caplog.text) is compile_losses
    torch.compiler.reset()


def test_within_autocast_no_moved_weight_is_used_and_none_stays() -> None:
    model, closure = classifier("gpt")
    model.eval()
    x = torch.randint(0, 10, (3, 7))
    optimizer = SGD(model.parameters(), lr=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        inside = SharpnessProbe(ON).measure(model, optimizer, closure)
        assert model(x).equal(before)
    outside = SharpnessProbe(ON).measure(model, optimizer, closure)
    assert inside is not None
    assert outside is not None
    assert inside.values == pytest.approx(outside.values, rel=0.3)
