"""Step phases: host time that a training loop spends on data, forward, backward and optimizer between two steps.

The data phase is read from `BatchWaits`, and the optimizer phase from the step hooks of a watch. Forward and backward
come from hooks on the watched model itself. There are no hooks on its submodules, and no global ones.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from nissa.gradients.batch_waits import BATCH_WAITS
from nissa.torch_compat import after_backward, is_compiled_in_place

if TYPE_CHECKING:
    from nissa.hub.error_boundary import Guard

DATA, FORWARD, BACKWARD, OPTIMIZER = "data", "forward", "backward", "optimizer"
PHASES: Final = (DATA, FORWARD, BACKWARD, OPTIMIZER)
"""Phases of a step, in their order."""

OWN: Final = "nissa"
"""Time of Nissa within a phase, for example for reading gradients after a closure. It is not exported."""

_SECONDS: Final = 1e-9


class PhaseTimer:
    """Time of each phase since the last step of an environment; used by its training thread.

    A phase that begins within another one interrupts it, so that no time counts twice: the forward pass in the closure of
    an optimizer is no part of the optimizer phase. A phase that was left by an exception is discarded when it begins
    again, and with the next step at the latest.

    Args:
        guard: Catches faults of the hooks.
        pause: Minimum seconds between the beginnings of two steps that are measured. Of shorter steps only some are measured, so
            that the hooks, which take about 25 microseconds, stay below 1 % of the time.

    Attributes:
        active: Whether the present step is measured.
        observed: Phases that have been observed so far.
        thread: Thread of the last step. Forward passes of other threads, such as those of replicas, do not count.
    """

    def __init__(self, guard: "Guard", pause: float = 0.005) -> None:
        self.guard = guard
        self.active = True
        self.thread = get_ident()
        self.observed: set[str] = set()
        self._pause = round(pause / _SECONDS)
        self._next = 0
        self._running: list[tuple[str, object]] = []
        self._changed = 0
        self._spent: dict[str, int] = {}
        self._models: weakref.WeakKeyDictionary[nn.Module, _ModelHooks] = weakref.WeakKeyDictionary()

    def begin(self, phase: str, owner: object = None) -> None:
        """Begin a phase.

        Args:
            phase: One of `PHASES`, or `OWN`.
            owner: Object that the phase belongs to. It cannot run the phase within itself.
        """
        if not self.active:
            return
        with self.guard:
            now = perf_counter_ns()
            running, entry = self._running, (phase, owner)
            if running:
                if entry in running:  # it was left by an exception
                    del running[running.index(entry) :]
                else:
                    self._add(running[-1][0], now)
            running.append(entry)
            self._changed = now

    def end(self, phase: str, owner: object = None) -> None:
        """End a phase, and those that began within it and did not end; nothing if it does not run."""
        running, entry = self._running, (phase, owner)
        if entry in running:
            with self.guard:
                now = perf_counter_ns()
                self._add(running[-1][0], now)
                del running[running.index(entry) :]
                self._changed = now

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Measure a block."""
        owner = object()
        self.begin(phase, owner)
        try:
            yield
        finally:
            self.end(phase, owner)

    def is_running(self, phase: str) -> bool:
        """Whether a phase runs."""
        return any(running == phase for running, _ in self._running)

    def take(self, *, used: bool = True, keep: bool = False) -> dict[str, float]:
        """Return the seconds of each phase that was observed since the last call; none of a step that is not measured.

        Args:
            used: Whether the result is used; otherwise the next step is measured in any case.
            keep: Let the running phases run on, as those of a backward pass in which an optimizer steps.
        """
        self.thread = get_ident()
        spent, self._spent = self._spent, {}
        if not keep:
            self._running.clear()
        waited = BATCH_WAITS.take()
        if waited is not None and self.active:
            spent[DATA] = waited
        now = perf_counter_ns()
        self.active = not used or now >= self._next
        if self.active:
            self._next = now + self._pause
        self.observed.update(spent)
        return {phase: spent[phase] * _SECONDS for phase in PHASES if phase in spent}

    def _add(self, phase: str, now: int) -> None:
        self._spent[phase] = self._spent.get(phase, 0) + now - self._changed

    def follow(self, model: nn.Module) -> Callable[[], None]:
        """Measure the forward and backward passes of a model until the returned function is called.

        A container without a forward pass of its own, such as a ``ModuleDict``, stands for the modules in it. So does a
        ``LightningModule``, of which the trainer calls ``training_step``. All hooks are registered here: further ones
        would make ``torch.compile`` compile again.
        """
        hooks = [self._hooks(module) for module in _callable_modules(model)]
        for each in hooks:
            each.users += 1
        BATCH_WAITS.begin()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                BATCH_WAITS.end()
                for each in hooks:
                    each.leave()

        return release

    def _hooks(self, module: nn.Module) -> "_ModelHooks":
        hooks = self._models.get(module)
        if hooks is None or not hooks.users:
            hooks = self._models[module] = _ModelHooks(module, self)
        return hooks


def _callable_modules(model: nn.Module) -> Iterator[nn.Module]:
    # Hooks of a scripted model must be scripted with it. On one that is compiled in place, they would compile it again.
    if isinstance(model, torch.jit.ScriptModule) or is_compiled_in_place(model):
        return
    forward = model.forward  # of the instance: torch.compile sets it there
    if getattr(forward, "__func__", forward) is not nn.Module.forward and not _is_lightning(model):
        yield model
        return
    for child in model.children():
        yield from _callable_modules(child)


def _is_lightning(model: nn.Module) -> bool:
    # By its name, since importing it takes seconds.
    return any(base.__name__ == "LightningModule" for base in type(model).__mro__)


class _ModelHooks:
    """Hooks of one model, shared by the watches of its optimizers. They keep no reference to it.

    Attributes:
        users: Number of watches.
    """

    def __init__(self, model: nn.Module, timer: PhaseTimer) -> None:
        self.users = 0
        begins = ForwardHook(timer)
        # First and last, so that the time of other hooks, such as those of FSDP, is part of the pass.
        self._handles = (
            model.register_forward_pre_hook(begins, prepend=True),
            model.register_forward_hook(ForwardHook(timer, begins)),
        )

    def leave(self) -> None:
        """Remove the hooks with the last watch."""
        self.users -= 1
        if not self.users:
            for handle in self._handles:
                handle.remove()


class OptimizerPhase:
    """Optimizer phase of one watch, and the passes of its model.

    Args:
        timer: Timer of the environment; None measures nothing.
    """

    def __init__(self, timer: PhaseTimer | None) -> None:
        self._timer = timer
        self._release: Callable[[], None] | None = None

    def follow(self, model: nn.Module) -> None:
        """Measure the passes of the model until `close`."""
        if self._timer is not None:
            self._release = self._timer.follow(model)

    def begin(self) -> None:
        """Begin the phase."""
        if self._timer is not None:
            self._timer.begin(OPTIMIZER, self)

    def end(self) -> None:
        """End the phase; nothing if it does not run."""
        if self._timer is not None:
            self._timer.end(OPTIMIZER, self)

    def interrupted(self) -> AbstractContextManager[None]:
        """Leave out a block of Nissa within the phase."""
        return nullcontext() if self._timer is None else self._timer.measure(OWN)

    def close(self) -> None:
        """Stop measuring; idempotent."""
        self._timer = None
        if self._release is not None:
            self._release()


class ForwardHook:
    """Hook before or after the forward pass of a model. It changes nothing, and is no part of a compiled graph.

    A copy of the model has a hook without effect, and a pickled model has one that is no class of Nissa.

    Args:
        timer: Timer of the environment; None for a hook without effect.
        begins: For the hook after the pass, the one before it.
    """

    observes_only = True

    def __init__(self, timer: PhaseTimer | None = None, begins: "ForwardHook | None" = None) -> None:
        self._timer = timer
        self._begins = begins

    def __call__(self, _module: nn.Module, _inputs: Any, *output: Any) -> None:
        """Begin or end the forward pass."""
        # While the model is compiled, nothing of this may become a part of its graph.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        timer = self._timer
        if timer is None or not timer.active or timer.thread != get_ident():
            return
        if self._begins is None:
            timer.begin(FORWARD, self)
            return
        timer.end(FORWARD, self._begins)
        with timer.guard:
            for tensor in _tensors(output):
                node = tensor.grad_fn
                if node is not None:
                    node.register_prehook(self._reached)

    def _reached(self, _gradients: Any) -> None:
        """Begin the backward pass that has reached an output of the model; it ends with the pass itself."""
        timer = self._timer
        if timer is None or torch.compiler.is_compiling() or not timer.active or timer.is_running(BACKWARD):
            return
        with timer.guard:
            if after_backward(self._passed):
                timer.begin(BACKWARD)

    def _passed(self) -> None:
        if self._timer is not None:
            self._timer.end(BACKWARD)

    @property
    def __name__(self) -> str:  # read by torch.jit.script() alone, which would compile the hook
        raise AttributeError(
            "torch.jit.script() cannot compile a model that Nissa watches. Close the watch before, or switch step phases off with "
            "step_phases: false."
        )

    def __deepcopy__(self, _memo: Any) -> "ForwardHook":
        """Return a hook without effect."""
        return ForwardHook()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a function of the standard library that accepts anything and returns None.

        A checkpoint of a whole model must load where Nissa is not installed.
        """
        return getattr, (nullcontext(), "__exit__")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in the output of a model."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
