"""Optimizers behind wrappers: each step counts once, with the gradients that changed the weights."""

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import accelerate
import pytest
import torch
from torch import nn
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.optim import SGD, Adam
from torch.optim.optimizer import Optimizer

from nissa import WatchError
from nissa.gradients.unwrapping import unwrap
from tests.unit.gradients.conftest import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def backward(network: nn.Module) -> torch.Tensor:
    loss: torch.Tensor = network(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


class Bare(Optimizer):
    """Wrapper that does not initialise its base class, like accelerate's, Opacus' and timm's."""

    attribute = "optimizer"

    def __init__(self, optimizer: Optimizer) -> None:
        setattr(self, self.attribute, optimizer)
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state

    def step(self, closure: Any = None) -> Any:
        return getattr(self, self.attribute).step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        getattr(self, self.attribute).zero_grad(set_to_none)


def bare(attribute: str) -> type[Bare]:
    return type(f"Bare_{attribute}", (Bare,), {"attribute": attribute})


class TwoSteps(Optimizer):
    """Sharpness-aware minimisation, after the public implementations: ascends, then lets the base optimizer descend."""

    def __init__(self, parameters: Any, base: Callable[..., Optimizer], rho: float = 0.05, **options: Any) -> None:
        super().__init__(parameters, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        self._old = [parameter.clone() for group in self.param_groups for parameter in group["params"]]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad, alpha=group["rho"])

    @torch.no_grad()
    def second_step(self) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, old in zip(parameters, self._old, strict=True):
            parameter.copy_(old)
        self.base_optimizer.step()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.first_step()
        with torch.enable_grad():
            loss = closure()
        self.second_step()
        return loss


class Averaging(SGD):
    """Changes gradients in its own step, as Horovod does, and then calls that of its parent."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(0.5)
        return super().step(closure)


class NoAveraging:
    """Averager of a single process; torch's own need a process group."""

    def average_parameters(self, params: Any) -> None:
        pass


def local_sgd(optimizer: Optimizer) -> Any:
    return PostLocalSGDOptimizer(optim=optimizer, averager=NoAveraging())  # type: ignore[arg-type]


WRAPPERS: dict[str, Callable[[Optimizer], Any]] = {
    "optimizer": bare("optimizer"),
    "original_optimizer (Opacus)": bare("original_optimizer"),
    "_base_optimizer (timm)": bare("_base_optimizer"),
    "PostLocalSGDOptimizer": local_sgd,
    "two wrappers": lambda optimizer: bare("optimizer")(bare("original_optimizer")(optimizer)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_optimizer_is_watched_where_its_hooks_run(
    lab: Lab, network: nn.Module, wrap: Callable[[Optimizer], Any]
) -> None:
    optimizer = wrap(SGD(network.parameters(), lr=0.1))
    watch = lab.env.watch(network, optimizer)
    for number in range(3):
        optimizer.zero_grad()
        loss = backward(network)
        lab.env.log_loss(loss)
        truth = gradients(network)
        optimizer.step()
        lab.agrees(lab.samples[-1], truth)
        assert (lab.steps[-1].step, lab.steps[-1].loss) == (number, loss.item())
    assert watch.steps == 3
    with pytest.raises(WatchError, match="watched already"):
        lab.env.watch(network, optimizer, name="again")


@pytest.mark.parametrize("separate", [True, False], ids=["first_step and second_step", "step(closure)"])
def test_sharpness_aware_minimisation_reports_the_gradients_of_the_descent(
    lab: Lab, network: nn.Module, separate: bool
) -> None:
    optimizer = TwoSteps(network.parameters(), SGD, lr=0.1)
    truth: list[dict[str, torch.Tensor]] = []
    lab.env.watch(network, optimizer)

    def closure() -> torch.Tensor:
        network.zero_grad()
        loss = backward(network)
        truth.append(gradients(network))
        return loss

    for _ in range(3):
        network.zero_grad()
        backward(network)
        if separate:
            optimizer.first_step()
            closure()
            optimizer.second_step()
        else:
            optimizer.step(closure)
    assert [step.step for step in lab.steps] == [0, 1, 2]
    for sample, used in zip(lab.samples, truth, strict=True):
        lab.agrees(sample, used)


def test_gradients_that_a_step_changes_before_its_parents_step_are_the_changed_ones(
    lab: Lab, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = Averaging(network.parameters(), lr=0.1)
    watch = lab.env.watch(network, optimizer)
    begun: list[bool] = []
    begin = watch._begin

    def counted(optimizer: Optimizer, **options: Any) -> None:
        begun.append(True)
        begin(optimizer, **options)

    monkeypatch.setattr(watch, "_begin", counted)
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        used = {name: gradient / 2 for name, gradient in gradients(network).items()}
        optimizer.step()
        lab.agrees(lab.samples[-1], used)
    assert [step.step for step in lab.steps] == [0, 1, 2]
    assert len(begun) == 2 + 1 + 1  # the outer step is measured once only


def test_a_pre_hook_that_is_registered_later_is_seen_from_the_next_step_on(lab: Lab, network: nn.Module) -> None:
    optimizer = Adam(network.parameters())
    watch = lab.env.watch(network, optimizer)
    optimizer.step()

    def clip(_optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)

    handle = optimizer.register_step_pre_hook(clip)
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        optimizer.step()
    norms = [sample.health.global_norm for sample in lab.samples[-2:]]
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-4)
    handle.remove()
    watch.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


class Replacing(Optimizer):
    """Optimizer without hooks, because its base class is not initialised."""

    def __init__(self, parameters: Any) -> None:
        self.param_groups = [{"params": list(parameters)}]

    def step(self, closure: Any = None) -> Any:
        return closure


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (Replacing, r"pass the torch.optim optimizer that it steps, or call super\(\).__init__\(\)"),
        (lambda p: torch.optim.lr_scheduler.StepLR(SGD(p, lr=0.1), 1), "not a StepLR"),
        (lambda _: "adam", "not a str"),
    ],
    ids=["no hooks", "scheduler", "text"],
)
def test_what_cannot_be_watched_is_refused_with_the_fix_and_nothing_changes(
    lab: Lab, network: nn.Module, make: Callable[[Any], Any], fix: str
) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(WatchError, match=fix):
        lab.env.watch(network, make(network.parameters()), scaler=scaler)
    assert "step" not in scaler.__dict__
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer, scaler=scaler)


def test_a_network_that_is_not_initialised_yet_can_be_watched(lab: Lab) -> None:
    network = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    network(torch.ones(3, 4)).square().mean().backward()
    truth = gradients(network)
    optimizer.step()
    lab.agrees(lab.samples[-1], truth)


def test_the_scaler_of_a_wrapper_is_found(network: nn.Module) -> None:
    wrapper: Any = bare("optimizer")(SGD(network.parameters(), lr=0.1))
    wrapper.scaler = scaler = torch.amp.GradScaler("cpu")
    assert unwrap(wrapper).scaler is scaler
    other = torch.amp.GradScaler("cpu")
    assert unwrap(wrapper, other).scaler is other


def test_an_epoch_without_any_step_is_a_warning(lab: Lab, network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    watched, other = (SGD(network.parameters(), lr=0.1) for _ in range(2))
    lab.env.watch(network, watched)
    with caplog.at_level(logging.WARNING, "nissa"):
        for number in range(2):
            with lab.env.epoch(number):
                backward(network)
                other.step()
    (warning,) = [record.getMessage() for record in caplog.records if "No step" in record.getMessage()]
    assert "Pass the optimizer whose step() changes the weights" in warning


def test_losses_without_any_step_are_a_warning_at_the_end(
    lab: Lab, network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    with caplog.at_level(logging.WARNING, "nissa"):
        lab.env.log_loss(1.0)
        lab.runtime.stop_watching()
    assert [record for record in caplog.records if "losses were logged" in record.getMessage()]


@pytest.mark.parametrize("unscaled", [False, True])
def test_steps_marked_by_hand_around_a_scaler_have_the_gradients_of_the_loss(
    lab: Lab, network: nn.Module, unscaled: bool
) -> None:
    optimizer, scaler = SGD(network.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=65536.0)
    watch = lab.env.watch(network, optimizer, hooks=False, scaler=scaler)
    for number in range(3):
        optimizer.zero_grad()
        scaler.scale(network(torch.ones(3, 4, dtype=torch.float64)).square().mean()).backward()
        truth = {name: gradient / scaler.get_scale() for name, gradient in gradients(network).items()}
        lab.env.log_loss(float(number))
        if unscaled:
            scaler.unscale_(optimizer)
        with watch.step():
            scaler.step(optimizer)
        scaler.update()
        lab.agrees(lab.samples[-1], truth)
    assert [(step.step, step.loss) for step in lab.steps] == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_loop_of_accelerate_with_accumulation_is_watched_as_prepared(lab: Lab, network: nn.Module) -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(network, SGD(network.parameters(), lr=0.1))
    lab.env.watch(model, optimizer)
    truth = []
    for number in range(6):
        with accelerator.accumulate(model):
            loss = model(torch.full((3, 4), number / 6, dtype=torch.float64)).square().mean()
            accelerator.backward(loss)
            lab.env.log_loss(loss)
            if accelerator.sync_gradients:
                truth.append(gradients(network))
            optimizer.step()
            optimizer.zero_grad()
    assert [step.step for step in lab.steps] == [0, 1, 2]
    for sample, used in zip(lab.samples, truth, strict=True):
        lab.agrees(sample, used)


@pytest.mark.parametrize("name", ["SAM", "Lookahead"])
def test_optimizers_of_pytorch_optimizer_are_watched_at_the_step_that_changes_weights(
    lab: Lab, network: nn.Module, name: str
) -> None:
    if name == "SAM":
        optimizer: Any = import_module("pytorch_optimizer").SAM(network.parameters(), SGD, lr=0.1)
    else:
        optimizer = import_module("pytorch_optimizer").Lookahead(SGD(network.parameters(), lr=0.1), k=2)
    lab.env.watch(network, optimizer)
    truth: list[dict[str, torch.Tensor]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = backward(network)
        truth.append(gradients(network))
        return loss

    for _ in range(4):
        closure()
        optimizer.step(*[closure] * (name == "SAM"))
    assert [step.step for step in lab.steps] == [0, 1, 2, 3]
    for sample, used in zip(lab.samples, truth[1::2] if name == "SAM" else truth, strict=True):
        lab.agrees(sample, used)


def test_an_optimizer_without_hooks_is_watched_by_hand_as_the_error_says(lab: Lab, network: nn.Module) -> None:
    optimizer = Replacing(network.parameters())
    watch = lab.env.watch(network, optimizer, hooks=False)
    backward(network)
    truth = gradients(network)
    with watch.step():
        optimizer.step()
    lab.agrees(lab.samples[-1], truth)
