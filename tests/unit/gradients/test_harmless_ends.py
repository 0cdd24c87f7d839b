"""However a training ends, nothing of ours keeps it alive, and what it said last is told."""

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

import nissa
from nissa import Run, Stage
from nissa.config.files import PROFILES
from nissa.kernels.transfer import Transfer
from tests.support import points, until

FOLDER = Path("nissa-runs/run")


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(profile: str, **settings: Any) -> Run:
        runs.append(nissa.start(profile, run_id="run", console__enabled=False, **settings))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


class StopError(Exception):
    """The training loop's own."""


class Stopping(SGD):
    """Fails while it steps, as for want of memory."""

    def step(self, _closure: Any = None) -> Any:
        raise StopError


def backward(network: nn.Module) -> torch.Tensor:
    loss: torch.Tensor = network(torch.ones(2, 3)).square().mean()
    torch.autograd.backward(loss)
    return loss


def train_with_everything(run: Run) -> list[weakref.ref[Any]]:
    """Return what must be gone with the training loop."""
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer, scaler = Adam(network.parameters()), torch.amp.GradScaler("cpu", init_scale=2.0)
    run.watch(network, optimizer, scaler=scaler)
    with run.epoch(0):
        run.germinate("seed-1", blueprint="b", slot="s", module=network[1]).advance(Stage.TRAINING)
        for scale in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            loss = network(torch.ones(2, 3)).square().mean() * scale
            torch.autograd.backward(scaler.scale(loss))
            scaler.unscale_(optimizer)
            run.clip_grad_norm_(network.parameters(), 1.0)
            run.log_loss(loss)
            scaler.step(optimizer)
            scaler.update()
        run.validate(loss=loss, accuracy=loss)
    run.flush()
    return [weakref.ref(each) for each in (network, network[1], optimizer, scaler, loss, *network.parameters())]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_under_way_keeps_nothing_of_a_training_alive(start: Callable[..., Run], profile: str) -> None:
    run = start(profile)
    known = train_with_everything(run)
    gc.collect()
    assert [each() for each in known] == [None] * len(known)
    assert not run.closed


def in_the_optimizer(run: Run) -> tuple[nn.Module, Optimizer, Any]:
    network = nn.Linear(3, 1)
    optimizer = Stopping(network.parameters(), lr=0.1)
    watch = run.watch(network, optimizer)
    backward(network)
    with pytest.raises(StopError):
        optimizer.step()
    return network, optimizer, watch


def in_the_closure(run: Run) -> tuple[nn.Module, Optimizer, Any]:
    network = nn.Linear(3, 1)
    optimizer = LBFGS(network.parameters())
    watch = run.watch(network, optimizer)
    with pytest.raises(StopError):
        optimizer.step(Stopping([nn.Parameter(torch.ones(1))]).step)  # type: ignore[no-untyped-call]
    return network, optimizer, watch


def by_hand(run: Run) -> tuple[nn.Module, Optimizer, Any]:
    network = nn.Linear(3, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = run.watch(network, optimizer, hooks=False)
    backward(network)
    with pytest.raises(StopError), watch.step():
        raise StopError
    return network, optimizer, watch


def closed_in_its_closure(run: Run) -> tuple[nn.Module, Optimizer, Any]:
    network = nn.Linear(3, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    watch = run.watch(network, optimizer)

    def closure() -> torch.Tensor:
        watch.close()
        return backward(network).detach()

    optimizer.step(closure)
    return network, optimizer, watch


INTERRUPTED = {each.__name__: each for each in (in_the_optimizer, in_the_closure, by_hand, closed_in_its_closure)}


@pytest.mark.parametrize("how", INTERRUPTED)
def test_a_step_that_never_ended_keeps_no_network_alive(start: Callable[..., Run], how: str) -> None:
    # The handle is kept, as a training loop may: it refers to what it watches weakly.
    network, optimizer, watch = INTERRUPTED[how](start("research"))
    known: list[weakref.ref[Any]] = [weakref.ref(each) for each in (network, optimizer, *network.parameters())]
    del network, optimizer
    gc.collect()
    assert [each() for each in known] == [None] * len(known)
    assert watch.steps == 0


def held(holder: Any) -> dict[str, Any]:
    """What an object has: its hooks counted, its functions and classes themselves, of the rest what it is."""
    return {name: _told(each) for name, each in vars(holder).items()}


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return len(value)
    return value if callable(value) else type(value)


def test_the_end_of_a_run_leaves_everything_as_it_was(start: Callable[..., Run]) -> None:
    network = nn.Linear(3, 1)
    optimizer, scaler = SGD(network.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    torch.autograd.backward(scaler.scale(network(torch.ones(2, 3)).sum()))
    scaler.step(optimizer)
    scaler.update()
    holders = (network, optimizer, scaler, Optimizer, SGD, nn.Module, torch.amp.GradScaler, torch.Tensor)
    before = [held(each) for each in holders]
    threads = set(threading.enumerate())
    run = start("research")
    run.watch(network, optimizer, scaler=scaler)
    assert [held(each) for each in holders] != before
    scaler.step(optimizer)
    scaler.update()
    run.close()
    assert [held(each) for each in holders] == before
    for parameter in network.parameters():
        assert parameter._backward_hooks is None
        assert parameter._post_accumulate_grad_hooks is None
    ours = set(threading.enumerate()) - threads
    until(lambda: not any(each.is_alive() for each in ours), "our threads to end")


def test_a_reader_that_falls_behind_drops_the_oldest_and_the_run_tells_how_many(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, asked = threading.Event(), threading.Event()

    def ready(_: Transfer) -> bool:
        asked.set()
        return idle.is_set()

    network = nn.Linear(3, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    run = start("diagnostic", limits__readback_queue_size=3)
    run.watch(network, optimizer)
    monkeypatch.setattr(Transfer, "ready", ready)  # a device that is busy
    for step in range(10):
        backward(network)
        run.log_loss(float(step))
        optimizer.step()
        assert asked.wait(10)
    idle.set()
    run.close()
    assert [point.value for point in points(FOLDER, "nissa.loss")] == [7.0, 8.0, 9.0]
    assert points(FOLDER, "nissa.readback.dropped")[-1].value == 7


@pytest.mark.parametrize("ends", ["close", "error"])
def test_the_last_step_is_told_although_the_device_is_not_done_with_it(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    network = nn.Linear(3, 1)
    optimizer = SGD(network.parameters(), lr=0.1)
    run = start("standard", gradients__every_n_steps=3)
    run.watch(network, optimizer)
    norms = []
    for _ in range(6):
        backward(network)
        optimizer.step()
    run.flush()
    asked = itertools.count()
    monkeypatch.setattr(Transfer, "ready", lambda _: next(asked) > 50)
    backward(network)
    norms = [float(p.grad.double().norm()) for p in network.parameters() if p.grad is not None]
    optimizer.step()
    if ends == "close":
        run.close()
    else:
        with pytest.raises(StopError), run:
            raise StopError
    assert next(asked) > 50
    assert [point.value for point in points(FOLDER, "nissa.step")][-1] == 6
    told = points(FOLDER, "nissa.gradient.norm")
    assert len(told) == 3 * 2
    latest = {each.attributes["nissa.parameter.name"]: each.value for each in told}  # the newest of each is the last
    assert list(latest.values()) == pytest.approx(norms, rel=1e-6)
