"""Several optimizers of one model: a count for each, and the gradient norm of the whole model."""

from collections.abc import Callable, Iterator
from math import hypot
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

from nissa import WatchError
from nissa.gradients.backward_watch import BackwardWatch
from nissa.gradients.watch_group import WatchGroup
from nissa.hub.measurements import WholeModelMeasured
from tests.unit.gradients.conftest import Lab


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def make(**overrides: Any) -> Lab:
        labs.append(Lab(limits__validation_wait_seconds=10, **overrides))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def optimizers(network: nn.Module) -> tuple[Optimizer, AdamW]:
    matrices = [each for each in network.parameters() if each.ndim == 2]
    vectors = [each for each in network.parameters() if each.ndim < 2]
    return Muon(matrices, lr=0.02), AdamW([{"params": vectors[:1], "lr": 1e-3}, {"params": vectors[1:], "lr": 2e-3}])


def backward(network: nn.Module, batch: int = 0) -> torch.Tensor:
    network.zero_grad()
    inputs = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4) + batch / 10
    loss: torch.Tensor = (network(inputs) - 1).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def norm(found: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([each.flatten() for each in found.values()]).norm())


def wholes(lab: Lab) -> list[WholeModelMeasured]:
    lab.flush()
    return [each for each in lab.memory.measurements if isinstance(each, WholeModelMeasured)]


@pytest.mark.parametrize("form", ["list", "dict", "tuple", "generator"])
def test_two_optimizers_of_one_model_have_names_counts_and_the_norm_of_the_whole(
    lab: Lab, network: nn.Module, form: str
) -> None:
    muon, adamw = optimizers(network)
    forms: dict[str, Any] = {
        "list": [muon, adamw],
        "dict": {"muon": muon, "adamw": adamw},
        "tuple": (muon, adamw),
        "generator": (each for each in (muon, adamw)),
    }
    watch = lab.env.watch(network, forms[form])
    assert isinstance(watch, WatchGroup)
    truth, losses = [], []
    for batch in range(4):
        loss = backward(network, batch)
        lab.env.log_loss(loss)
        losses.append(loss.item())
        truth.append(gradients(network))
        muon.step()
        adamw.step()
    assert [(each.model_name, each.step) for each in wholes(lab)] == [(None, number) for number in range(4)]
    assert [each.health.global_norm for each in wholes(lab)] == pytest.approx([norm(each) for each in truth], rel=1e-13)
    assert [each.health.layers for each in wholes(lab)] == [4] * 4
    assert (watch.steps, watch["muon"].steps, watch["adamw"].steps, len(watch)) == (4, 4, 4, 2)
    assert [(step.step, step.loss) for step in lab.steps if step.primary] == list(enumerate(losses))
    assert {step.model_name for step in lab.steps if step.primary} == {"muon"}
    assert {step.learning_rates for step in lab.steps if step.model_name == "adamw"} == {(1e-3, 2e-3)}
    for name, parameters in (("muon", ("0.weight", "2.weight")), ("adamw", ("0.bias", "2.bias"))):
        samples = [sample for sample in lab.samples if sample.model_name == name]
        for sample, found in zip(samples, truth, strict=True):
            lab.agrees(sample, {parameter: found[parameter] for parameter in parameters})
    health = lab.env.validate(loss=1.0).gradient_health
    assert health is not None
    assert health.global_norm == pytest.approx(norm(truth[-1]), rel=1e-13)
    assert health.layers == 4


def test_the_whole_is_measured_in_rounds_in_which_every_optimizer_steps(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    watch = lab.env.watch(network, [muon, adamw])
    truth = []
    for batch in range(5):
        backward(network, batch)
        if batch % 2 == 0:
            truth.append(norm(gradients(network)))
            adamw.step()
        muon.step()
    assert [each.health.global_norm for each in wholes(lab)] == pytest.approx(truth, rel=1e-13)
    assert isinstance(watch, WatchGroup)
    assert (watch["muon"].steps, watch["adamw"].steps) == (5, 3)


def test_an_optimizer_that_stops_leaves_the_health_to_the_other(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    lab.env.watch(network, [muon, adamw])
    for batch in range(4):
        backward(network, batch)
        if batch == 0:
            adamw.step()
        muon.step()
    weights = {name: each for name, each in gradients(network).items() if name.endswith("weight")}
    health = lab.env.validate(loss=1.0).gradient_health
    assert health is not None
    newest = [sample.health.global_norm for sample in lab.samples if sample.model_name == "muon"][-1]
    assert newest == pytest.approx(norm(weights), rel=1e-13)
    assert len(wholes(lab)) == 1


def test_all_optimizers_are_sampled_in_the_same_rounds(make_lab: Callable[..., Lab], network: nn.Module) -> None:
    lab = make_lab(gradients__every_n_steps=3)
    muon, adamw = optimizers(network)
    lab.env.watch(network, [muon, adamw])
    truth = []
    for batch in range(7):
        backward(network, batch)
        truth.append(norm(gradients(network)))
        muon.step()
        adamw.step()
    assert [each.step for each in wholes(lab)] == [0, 3, 6]
    assert [each.health.global_norm for each in wholes(lab)] == pytest.approx(truth[::3], rel=1e-13)


def test_a_step_that_the_scaler_skips_takes_part_in_its_round(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    lab.env.watch(network, [muon, adamw], scaler=scaler)
    truth = []
    for batch in range(5):
        network.zero_grad()
        loss = (network(torch.full((5, 4), batch / 4, dtype=torch.float64)) - 1).square().mean()
        scaler.scale(loss).backward()
        if batch == 2:
            network[0].weight.grad.fill_(torch.inf)  # type: ignore[index]
        else:
            scale = scaler.get_scale()
            truth.append(norm({name: each / scale for name, each in gradients(network).items()}))
        scaler.step(muon)
        scaler.step(adamw)
        scaler.update()
    # The scaler skips the optimizer whose gradients are not finite, and steps the other one.
    assert [each.health.global_norm for each in wholes(lab)] == pytest.approx(truth, rel=1e-13)


def test_a_name_comes_before_those_of_the_optimizers(lab: Lab, network: nn.Module) -> None:
    generator, critic = network, nn.Linear(3, 1).double()
    kept = optimizers(generator), Adam(critic.parameters())
    lab.env.watch(generator, kept[0], name="generator")
    lab.env.watch(critic, kept[1], name="critic")
    with pytest.raises(WatchError, match=r"other than 'generator.muon'"):
        lab.env.watch(network, optimizers(network), name="generator")
    assert {each.name for each in lab.runtime.watches.of(None)} == {"generator.muon", "generator.adamw", "critic"}


def test_optimizers_of_one_class_are_numbered(lab: Lab, network: nn.Module) -> None:
    first, second = (Adam(list(network[place].parameters())) for place in (0, 2))  # type: ignore[index]
    watch = lab.env.watch(network, [first, second])
    assert isinstance(watch, WatchGroup)
    assert list(watch.watches) == ["adam_0", "adam_1"]


def test_closing_the_handle_leaves_nothing(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    watch = lab.env.watch(network, {"muon": muon, "adamw": adamw})
    backward(network)
    muon.step()
    adamw.step()
    lab.flush()
    watch.close()
    watch.close()
    for optimizer in (muon, adamw):
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
    assert lab.env.validate(loss=1.0).gradient_health is None
    again = lab.env.watch(network, {"muon": muon, "adamw": adamw})
    assert again.steps == 1


class Hookless(torch.optim.Optimizer):
    """Optimizer without hooks, because its base class is not initialised."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.param_groups = [{"params": parameters}]

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("second", "fix"),
    [
        (lambda network: Hookless(list(network.parameters())), "torch runs no step hooks"),
        (lambda _: SGD(nn.Linear(2, 2).parameters()), "none of the parameters"),
        (lambda _: "adamw", "not a str"),
    ],
    ids=["no hooks", "another model", "text"],
)
def test_one_that_cannot_be_watched_leaves_none_watched(
    lab: Lab, network: nn.Module, second: Callable[[nn.Module], object], fix: str
) -> None:
    muon, _ = optimizers(network)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(WatchError, match=fix):
        lab.env.watch(network, [muon, second(network)], scaler=scaler)  # type: ignore[list-item]
    assert not muon._optimizer_step_pre_hooks
    assert "step" not in scaler.__dict__
    assert lab.runtime.watches.of(None) == []
    lab.env.watch(network, muon)


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda _: [], "the collection is empty"),
        (lambda muon: [muon, muon], "the same optimizer twice"),
        (lambda muon: {1: muon}, "needs a text as the name of each optimizer, not int"),
    ],
    ids=["none", "twice", "number as a name"],
)
def test_a_wrong_collection_is_refused_with_the_fix(
    lab: Lab, network: nn.Module, make: Callable[[Optimizer], object], fix: str
) -> None:
    with pytest.raises(WatchError, match=fix):
        lab.env.watch(network, make(optimizers(network)[0]))  # type: ignore[call-overload]


def test_a_failure_while_hooks_are_registered_leaves_none_watched(
    lab: Lab, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    muon, adamw = optimizers(network)

    def broken(*_: object) -> None:
        raise RuntimeError("cannot be hooked")

    monkeypatch.setattr(adamw, "register_step_post_hook", broken)
    with pytest.raises(RuntimeError, match="cannot be hooked"):
        lab.env.watch(network, [muon, adamw])
    assert not muon._optimizer_step_pre_hooks
    assert not adamw._optimizer_step_pre_hooks
    assert lab.runtime.watches.of(None) == []


def test_steps_of_several_optimizers_are_marked_by_hand_together(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    watch = lab.env.watch(network, {"muon": muon, "adamw": adamw}, hooks=False)
    truth = []
    for batch in range(3):
        backward(network, batch)
        truth.append(norm(gradients(network)))
        with watch.step():
            muon.step()
            adamw.step()
    assert [each.health.global_norm for each in wholes(lab)] == pytest.approx(truth, rel=1e-13)


def test_an_optimizer_that_replaces_another_continues_its_count(lab: Lab, network: nn.Module) -> None:
    optimizer: torch.optim.Optimizer = SGD(network.parameters(), lr=0.1)
    first = lab.env.watch(network, optimizer)
    for batch in range(3):
        backward(network, batch)
        optimizer.step()
    with pytest.raises(WatchError, match=r"close\(\) the handle of that one first; the steps are counted on"):
        lab.env.watch(network, Adam(network.parameters()))
    first.close()
    optimizer = Adam(network.parameters())
    second = lab.env.watch(network, optimizer)
    for batch in range(3):
        backward(network, batch)
        optimizer.step()
    assert second.steps == 6
    assert [step.step for step in lab.steps] == [sample.step for sample in lab.samples] == list(range(6))
    assert all(step.missed == 0 for step in lab.steps)


def in_backward(network: nn.Module, lr: float = 0.1) -> dict[nn.Parameter, SGD]:
    """Optimizers that step during the backward pass, as in torch's tutorial."""
    found = {parameter: SGD([parameter], lr=lr, foreach=False) for parameter in network.parameters()}

    def hook(parameter: torch.Tensor) -> None:
        found[parameter].step()  # type: ignore[index]
        found[parameter].zero_grad()  # type: ignore[index]

    for parameter in found:
        parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    return found


def twin_of(network: nn.Module, lr: float = 0.1) -> tuple[nn.Module, SGD]:
    twin = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    twin.load_state_dict(network.state_dict())
    return twin, SGD(twin.parameters(), lr=lr)


@pytest.mark.parametrize("form", ["by parameter", "list"])
@pytest.mark.parametrize("log", ["before", "after"])
def test_optimizers_in_backward_make_one_step_per_pass(lab: Lab, network: nn.Module, form: str, log: str) -> None:
    twin, reference = twin_of(network)
    found = in_backward(network)
    given: Any = found if form == "by parameter" else list(found.values())
    watch = lab.env.watch(network, given)
    assert isinstance(watch, BackwardWatch)
    truth, losses = [], []
    for batch in range(4):
        losses.append(backward(twin, batch).item())
        truth.append(gradients(twin))
        reference.step()
        if log == "before":
            lab.env.log_loss(losses[-1])
        backward(network, batch)
        assert watch.steps == batch + 1
        if log == "after":
            lab.env.log_loss(losses[-1])
    assert [(step.step, step.loss, step.learning_rates) for step in lab.steps] == [
        (number, loss, (0.1,)) for number, loss in enumerate(losses)
    ]
    for sample, used in zip(lab.samples, truth, strict=True):
        lab.agrees(sample, used)
        assert sample.health.global_norm == pytest.approx(norm(used), rel=1e-13)
    for parameter, expected in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_pass_with_unused_parameters_ends_with_the_next_one(lab: Lab) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)}).double()
    found = in_backward(network)
    watch = lab.env.watch(network, found)
    twin = nn.Linear(3, 1).double()
    twin.load_state_dict(network["used"].state_dict())
    reference = SGD(twin.parameters(), lr=0.1)
    truth: list[dict[str, torch.Tensor]] = []
    for batch in range(3):
        for each, into in ((network["used"], None), (twin, truth)):
            each.zero_grad()
            each(torch.full((2, 3), 1.0 + batch, dtype=torch.float64)).square().mean().backward()
            if into is not None:
                into.append({f"used.{name}": gradient for name, gradient in gradients(twin).items()})
        reference.step()
        assert watch.steps == batch + 1
    assert [step.step for step in lab.steps] == [0, 1, 2]
    for sample, used in zip(lab.samples, truth, strict=True):
        lab.agrees(sample, used)
        assert sample.idle == ("unused.weight", "unused.bias")


def test_optimizers_in_backward_are_sampled_with_their_updates_and_close(
    make_lab: Callable[..., Lab], network: nn.Module
) -> None:
    lab = make_lab(gradients__every_n_steps=2, gradients__update_ratios=True)
    found = in_backward(network, lr=0.5)
    watch = lab.env.watch(network, found)
    weights = [each.detach().clone() for each in network.parameters()]
    backward(network)
    changes = [
        (after.detach() - before).norm().item() / before.norm().item()
        for before, after in zip(weights, network.parameters(), strict=True)
    ]
    backward(network, 1)
    first, *rest = lab.samples
    assert rest == []
    assert first.update_ratios is not None
    assert dict(zip(first.names, first.update_ratios, strict=True)) == pytest.approx(
        dict(zip([name for name, _ in network.named_parameters()], changes, strict=True)), rel=1e-9
    )
    watch.close()
    assert not any(each._optimizer_step_pre_hooks or each._optimizer_step_post_hooks for each in found.values())
    again = lab.env.watch(network, found)
    with pytest.raises(WatchError, match="watched already"):
        lab.env.watch(network, list(found.values())[-1], name="again")
    assert again.steps == 2


def test_different_learning_rates_in_backward_are_one_each(lab: Lab, network: nn.Module) -> None:
    found = in_backward(network)
    rates = []
    for number, optimizer in enumerate(found.values()):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
        rates.append(0.1 / (1 + number))
    lab.env.watch(network, found)
    backward(network)
    assert [step.learning_rates for step in lab.steps] == [tuple(rates)]


def test_options_that_optimizers_in_backward_do_not_have_are_refused(lab: Lab, network: nn.Module) -> None:
    with pytest.raises(WatchError, match="leave out hooks= and scaler="):
        lab.env.watch(network, in_backward(network), hooks=False)


def test_the_norm_of_the_parts_is_that_of_the_whole(lab: Lab, network: nn.Module) -> None:
    muon, adamw = optimizers(network)
    lab.env.watch(network, [muon, adamw])
    backward(network)
    muon.step()
    adamw.step()
    parts = [sample.health.global_norm or 0.0 for sample in lab.samples]
    assert [each.health.global_norm for each in wholes(lab)] == [hypot(*parts)]
