"""Step phases: what is measured, and what is left as it was."""

import copy
import io
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

import nissa
import nissa.gradients.batch_waits
import nissa.gradients.phases
from nissa import MemoryBackend
from nissa.gradients.batch_waits import BATCH_WAITS
from nissa.gradients.phases import BACKWARD, DATA, FORWARD, OPTIMIZER, PhaseTimer
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.measurements import StepMeasured
from nissa.testing import FakeClock
from nissa.torch_compat import BATCH_ITERATOR

WAIT = 0.02
"""Seconds that a part of a step takes, on a clock that only these tests advance."""

CLOCK = FakeClock()

ALONE: dict[str, Any] = {"console__enabled": False, "diagnostics__contracts": False}
"""Settings under which a model has no other hooks."""


class Slow(nn.Module):
    """Network that takes time in its forward pass and, through a hook of a gradient, in its backward pass."""

    def __init__(self, forward: float = 0.0, backward: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)
        self.forward_seconds, self.backward_seconds = forward, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CLOCK.advance(self.forward_seconds)
        found: torch.Tensor = self.inner(x)
        if found.requires_grad:
            found.register_hook(lambda _gradient: CLOCK.advance(self.backward_seconds))
        return found.mean()


class SlowData(Dataset[torch.Tensor]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        CLOCK.advance(self.seconds)
        return torch.ones(3) * index


class SlowSGD(torch.optim.SGD):
    seconds = 0.0

    def step(self, closure: Any = None) -> Any:
        CLOCK.advance(self.seconds)
        return super().step(closure)


@pytest.fixture
def memory() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nissa.gradients.phases, nissa.gradients.batch_waits):
        monkeypatch.setattr(module, "perf_counter_ns", CLOCK)


@pytest.fixture
def run(memory: MemoryBackend) -> Iterator[nissa.Run]:
    with nissa.start("minimal", backends=[memory], clock=CLOCK, **ALONE) as run:
        yield run


def steps(memory: MemoryBackend) -> list[StepMeasured]:
    run = nissa.current_run()
    assert run is None or run.flush(10)
    return [each for each in memory.measurements if isinstance(each, StepMeasured)]


def phases(memory: MemoryBackend) -> list[dict[str, float]]:
    return [dict(each.phases) for each in steps(memory)]


@pytest.mark.parametrize("slow", [DATA, FORWARD, BACKWARD, OPTIMIZER])
def test_the_time_of_each_phase_is_its_own(run: nissa.Run, memory: MemoryBackend, slow: str) -> None:
    seconds = dict.fromkeys((DATA, FORWARD, BACKWARD, OPTIMIZER), 0.0) | {slow: WAIT}
    model = Slow(seconds[FORWARD], seconds[BACKWARD])
    optimizer = SlowSGD(model.parameters(), lr=0.1)
    optimizer.seconds = seconds[OPTIMIZER]
    run.watch(model, optimizer)
    for batch in DataLoader(SlowData(seconds[DATA])):
        model(batch).backward()
        optimizer.step()
    first, *others = phases(memory)
    assert first == {}  # there is no step before it from which its duration could be measured
    for each in others:
        assert each == pytest.approx(seconds)
        assert list(each) == [DATA, FORWARD, BACKWARD, OPTIMIZER]


def test_phases_are_within_the_duration_of_the_step_and_no_time_counts_twice(
    run: nissa.Run, memory: MemoryBackend
) -> None:
    model = Slow(WAIT, WAIT)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    run.watch(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(torch.ones(1, 3))
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for step in steps(memory)[1:]:
        assert step.duration is not None
        passes = step.phases[FORWARD] / WAIT
        assert passes == pytest.approx(round(passes))
        assert step.phases == pytest.approx({FORWARD: passes * WAIT, BACKWARD: passes * WAIT, OPTIMIZER: 0.0})
        assert sum(step.phases.values()) == pytest.approx(step.duration)


def test_what_is_evaluated_without_gradients_is_no_phase(run: nissa.Run, memory: MemoryBackend) -> None:
    model = Slow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for _ in range(2):
        model(torch.ones(1, 3)).backward()
        optimizer.step()
        model.forward_seconds = WAIT
        with torch.no_grad():
            for batch in DataLoader(SlowData(WAIT)):
                model(batch)
        model.forward_seconds = 0.0
    last = phases(memory)[-1]
    assert last == {FORWARD: 0, BACKWARD: 0, OPTIMIZER: 0}


def test_steps_of_a_pass_that_is_accumulated_are_added_up(run: nissa.Run, memory: MemoryBackend) -> None:
    model = Slow(WAIT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for _ in range(2):
        for _ in range(3):
            model(torch.ones(1, 3)).backward()
        optimizer.step()
    assert phases(memory)[-1][FORWARD] == pytest.approx(3 * WAIT)


def test_a_container_stands_for_the_modules_in_it(run: nissa.Run, memory: MemoryBackend) -> None:
    model = nn.ModuleDict({"actor": Slow(WAIT), "critic": Slow(WAIT)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for _ in range(2):
        (model["actor"](torch.ones(1, 3)) + model["critic"](torch.ones(1, 3))).backward()
        optimizer.step()
    assert phases(memory)[-1][FORWARD] == pytest.approx(2 * WAIT)


class LightningModule(nn.Module):
    """Model of which a trainer calls a method, as that of Lightning does."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(Slow(WAIT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(x)
        return found

    def training_step(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(x)
        return found


def test_a_model_of_which_a_method_is_called_stands_for_the_modules_in_it(
    run: nissa.Run, memory: MemoryBackend
) -> None:
    model = LightningModule()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = run.watch(model, optimizer)
    for call in (model.training_step, model.training_step, model):
        call(torch.ones(1, 3)).backward()
        optimizer.step()
    for each in phases(memory)[1:]:
        assert each == pytest.approx({FORWARD: WAIT, BACKWARD: 0.0, OPTIMIZER: 0.0})
    watch.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_optimizers_that_step_during_the_backward_pass_are_no_part_of_it(run: nissa.Run, memory: MemoryBackend) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizers = {parameter: SlowSGD([parameter], lr=0.1) for parameter in model.parameters()}
    for parameter, each in optimizers.items():
        each.seconds = WAIT / 4
        parameter.register_post_accumulate_grad_hook(lambda done: optimizers[done].step())
    run.watch(model, optimizers)
    for _ in range(4):
        model(torch.ones(1, 3)).sum().backward()
    # A pass ends with its last optimizer, so that the steps of the pass are its own.
    assert phases(memory)[-1] == pytest.approx({FORWARD: 0, BACKWARD: 0, OPTIMIZER: WAIT})


def test_a_forward_pass_that_raises_does_not_run_on(run: nissa.Run, memory: MemoryBackend) -> None:
    class Failing(Slow):
        fails = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fails:
                raise ZeroDivisionError
            return super().forward(x)

    model = Failing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for _ in range(2):
        model.fails = True
        with pytest.raises(ZeroDivisionError):
            model(torch.ones(1, 3))
        CLOCK.advance(WAIT)
        model.fails = False
        model(torch.ones(1, 3)).backward()
        optimizer.step()
    assert phases(memory)[-1][FORWARD] == 0


class Strange(dict[str, Any]):
    """Output of a model that cannot be iterated over."""

    def values(self) -> Any:
        raise ZeroDivisionError


@pytest.mark.faults
def test_an_output_that_cannot_be_read_and_passes_of_other_threads_harm_nobody(
    run: nissa.Run, memory: MemoryBackend
) -> None:
    class Returning(Slow):
        def forward(self, x: torch.Tensor) -> Any:
            return Strange(loss=super().forward(x))

    model = Returning(WAIT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for _ in range(2):
        other: Any = threading.Thread(target=model, args=(torch.ones(1, 3),))
        other.start()
        other.join()
        model(torch.ones(1, 3))["loss"].backward()
        optimizer.step()
    assert phases(memory)[-1] == pytest.approx({FORWARD: WAIT, OPTIMIZER: 0.0})
    assert nissa.get_hub().error_boundary.faults["step phases"] == 2


def test_short_steps_are_measured_now_and_then() -> None:
    timer, measured = PhaseTimer(ErrorBoundary().guard("test"), pause=60), 0
    for _ in range(5):
        timer.begin(OPTIMIZER)
        timer.end(OPTIMIZER)
        measured += OPTIMIZER in timer.take()
    assert measured == 2  # the first, and the one that begins before anything is known of the duration
    timer = PhaseTimer(ErrorBoundary().guard("test"), pause=0)
    for _ in range(5):
        timer.begin(OPTIMIZER)
        timer.end(OPTIMIZER)
        assert OPTIMIZER in timer.take()


def test_nothing_is_measured_or_hooked_where_it_is_off(memory: MemoryBackend) -> None:
    model = Slow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = vars(BATCH_ITERATOR)["__next__"]
    with nissa.start("minimal", backends=[memory], step_phases=False, **ALONE) as run:
        run.watch(model, optimizer)
        assert not model._forward_hooks
        assert vars(BATCH_ITERATOR)["__next__"] is before
        for _ in range(2):
            model(torch.ones(1, 3)).backward()
            optimizer.step()
    assert phases(memory) == [{}, {}]


def test_model_and_loaders_are_restored_with_the_last_watch(run: nissa.Run) -> None:
    model, before = Slow(), vars(BATCH_ITERATOR)["__next__"]
    watches = [
        run.watch(model, torch.optim.SGD([each], lr=0.1), name=name) for name, each in model.inner.named_parameters()
    ]
    assert len(model._forward_hooks) == len(model._forward_pre_hooks) == 1
    watches[0].close()
    watches[0].close()
    assert len(model._forward_hooks) == 1
    watches[1].close()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert vars(BATCH_ITERATOR)["__next__"] is before


def _deep(model: nn.Module) -> Any:
    return copy.deepcopy(model)


def _saved(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    assert b"nissa" not in file.getvalue()
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [_deep, _saved])
def test_a_copy_of_the_model_has_hooks_without_effect(
    run: nissa.Run, memory: MemoryBackend, copied: Callable[[nn.Module], Any]
) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    twin = copied(model)
    x = torch.ones(1, 3)
    assert torch.equal(twin(x), model(x))
    for _ in range(2):
        twin(x).sum().backward()
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert list(phases(memory)[-1]) == [OPTIMIZER]


def test_a_compiled_model_has_a_whole_graph_and_is_measured_where_its_wrapper_is_watched(
    run: nissa.Run, memory: MemoryBackend
) -> None:
    model = nn.Sequential(nn.Linear(3, 1))
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = run.watch(model, optimizer)
    for _ in range(2):
        compiled(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert list(phases(memory)[-1]) == [OPTIMIZER]
    watch.close()
    run.watch(compiled, optimizer)
    for _ in range(3):
        compiled(torch.ones(1, 3)).sum().backward()
        CLOCK.advance(WAIT)
        optimizer.step()
    assert list(phases(memory)[-1]) == [FORWARD, BACKWARD, OPTIMIZER]


@pytest.mark.full
@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_nothing_is_compiled_again(way: str) -> None:
    from torch._dynamo.testing import CompileCounter  # noqa: PLC0415 - it takes seconds, and every worker collects this file

    model: Any = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    compilations = CompileCounter()
    if way == "in place":
        model.compile(backend=compilations)
        called = model
    else:
        called = torch.compile(model, backend=compilations)
    for _ in range(2):
        called(torch.ones(1, 3)).sum().backward()
    timer = PhaseTimer(ErrorBoundary().guard("test"), pause=0)
    release = timer.follow(model)
    for _ in range(4):
        called(torch.ones(1, 3)).sum().backward()
        timer.take()
    release()
    called(torch.ones(1, 3)).sum().backward()
    assert compilations.frame_count == 1


def test_a_scripted_model_is_left_alone(memory: MemoryBackend) -> None:
    model = torch.jit.script(nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nissa.start("minimal", backends=[memory], console__enabled=False) as run:
        run.watch(model, optimizer)
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    assert list(phases(memory)[-1]) == [OPTIMIZER]


def test_scripting_a_watched_model_says_what_to_do(run: nissa.Run) -> None:
    model = nn.Linear(3, 1)
    watch = run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(AttributeError, match="Close the watch before"):
        torch.jit.script(model)
    watch.close()
    assert torch.jit.script(model)(torch.ones(1, 3)).shape == (1, 1)


def test_gradients_are_bit_identical() -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        handle = None if nissa.current_run() is None else nissa.current_run().watch(model, optimizer)  # type: ignore[union-attr]
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
        if handle is not None:
            handle.close()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    without = gradients()
    with nissa.start("minimal", console__enabled=False):
        observed = gradients()
    assert all(torch.equal(one, other) for one, other in zip(without, observed, strict=True))


def _functional(model: nn.Module, x: torch.Tensor) -> Iterator[torch.Tensor]:
    parameters: dict[str, torch.Tensor] = dict(model.named_parameters())

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(model, parameters, (x,)).square().mean()
        return found

    yield grad(loss)(parameters, x)["0.weight"]
    yield vmap(grad(loss), in_dims=(None, 0))(parameters, x)["0.weight"]
    yield jacrev(lambda x: functional_call(model, parameters, (x,)))(x)
    yield torch.autograd.functional.hessian(lambda x: model(x).sum(), x)


def _passes(model: nn.Module, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the gradients of backward passes of several kinds."""
    for reentrant in (False, True):
        checkpoint(model, x.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
        yield _gradient(model)
    total = model(x).sum()
    total.backward(retain_graph=True)
    total.backward()
    yield _gradient(model)
    z = x.clone().requires_grad_()
    torch.autograd.grad(model(z).sum(), z, create_graph=True)[0].square().sum().backward()
    yield _gradient(model)


def _gradient(model: nn.Module) -> torch.Tensor:
    weight = next(model.parameters())
    assert weight.grad is not None
    found = weight.grad.clone()
    model.zero_grad()
    return found


def _traced(model: nn.Module, x: torch.Tensor) -> Iterator[torch.Tensor]:
    yield torch.export.export(model, (x,)).module()(x)
    yield torch.jit.trace(model, (x,))(x)
    yield torch.fx.symbolic_trace(model)(x)


def _compiled(model: nn.Module, x: torch.Tensor) -> Iterator[torch.Tensor]:
    torch.compile(model, backend="aot_eager", fullgraph=True)(x).sum().backward()
    yield _gradient(model)
    torch._dynamo.reset()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        model(x).sum().backward()
    yield _gradient(model)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "used", [_functional, _passes, *(pytest.param(each, marks=pytest.mark.full) for each in (_traced, _compiled))]
)
def test_a_hooked_model_can_be_used_as_any_other(used: Callable[..., Iterator[torch.Tensor]]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3)
    plain = list(used(model, x))
    timer = PhaseTimer(ErrorBoundary().guard("test"), pause=0)
    release = timer.follow(model)
    observed = list(used(model, x))
    assert len(plain) >= 2
    assert all(torch.equal(one, other) for one, other in zip(plain, observed, strict=True))
    timer.begin(OPTIMIZER)
    timer.end(OPTIMIZER)
    assert OPTIMIZER in timer.take()
    release()


class Broken(Dataset[float]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return 1 / (2 - index)


def test_the_traceback_of_a_dataset_and_the_end_of_the_data_are_the_same() -> None:
    def seen() -> list[str]:
        found = []
        iterator = iter(DataLoader(TensorDataset(torch.ones(1))))
        for look in (lambda: list(DataLoader(Broken())), lambda: [next(iterator), next(iterator)]):
            try:
                look()
            except Exception:  # noqa: BLE001 - its text is the result
                found.append(traceback.format_exc())
        return found

    plain = seen()
    BATCH_WAITS.begin()
    try:
        observed = seen()
    finally:
        BATCH_WAITS.end()
    assert len(plain) == 2
    assert observed == plain
