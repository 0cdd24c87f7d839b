"""Watch on an optimizer: counts its steps through step hooks and samples the gradients that they use.

Hooks are registered on the instance, never on the class, so that an optimizer with an inherited ``step`` is counted
once.
"""

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from nissa.distributed.dtensors import is_distributed
from nissa.distributed.sharding import unsupported
from nissa.errors import WatchError
from nissa.gradients.capture import Capture
from nissa.gradients.hooks import LastHook, active_steps, recording, untraced
from nissa.gradients.loss_scaling import ScaledSteps, found_inf_of, overflow, pending_scale
from nissa.gradients.overhead import HookTimer
from nissa.gradients.packing import pack
from nissa.gradients.readback import Readback
from nissa.gradients.selection import MeasurableParameters
from nissa.gradients.skips import SkipCounts
from nissa.gradients.step_metadata import (
    INTERVAL,
    OVERHEAD,
    WINDOW,
    DeliveryProgress,
    RowMetadata,
    SamplingPlan,
    StepMetadata,
)
from nissa.gradients.step_scalars import step_scalars
from nissa.kernels.transfer import Transfer

if TYPE_CHECKING:
    from collections import deque

    from nissa.gradients.steps import StepClock
    from nissa.hub.error_boundary import ErrorBoundary

Seeds = Callable[[], Sequence[tuple[str, frozenset[int]]]]
"""Callable that returns the slot and the parameter ids of each growing seed."""

_logger = logging.getLogger("nissa")


class StepScope:
    """Holder of the capture of a running step.

    A step that raises runs no post hook to release its capture, and a capture references model, parameters and
    optimizer. Therefore the code that runs the step owns this object, for example the optimizer's pre hook. The watch
    only holds a weak reference.
    """

    capture: "Capture | None" = None


class Watch:
    """A watched optimizer; returned by ``run.watch``.

    Attributes:
        steps: Number of ``step()`` calls so far.
        name: Name of the model; None if the environment has only one.
        primary: Whether its steps count as the steps of its environment.
        schedule: Sampling schedule.
        by_hand: Whether steps are marked with `step` because no hooks are registered.

    Args:
        outer: Wrappers around the optimizer whose step hooks run as well.
        on_close: Called by `close`.
        finalized: Queue of watches whose optimizer was garbage-collected. A finalizer may run inside any frame, even
            while that frame holds a lock, so that it may only append. The owner drains the queue and releases the watch
            as after `close`.
    """

    def __init__(  # noqa: PLR0913 - a value object with a life; every argument is a collaborator
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        name: str | None,
        primary: bool,
        hooks: bool,
        scaler: Any,
        outer: Sequence[torch.optim.Optimizer] = (),
        sampling: SamplingPlan,
        clock: "StepClock",
        seeds: Seeds,
        readback: Readback[RowMetadata],
        error_boundary: "ErrorBoundary",
        on_close: "Callable[[Watch], None]",
        finalized: "deque[Watch] | None" = None,
    ) -> None:
        self.steps = 0
        self.name = name
        self.primary = primary
        self._model = weakref.ref(model)
        self._optimizer = weakref.ref(optimizer)
        self._sampling = sampling
        self._clock = clock
        self._hook_timer = HookTimer(clock.stopwatch)
        self.schedule = sampling.schedule(name)
        self._interval = self.schedule.interval
        self._seeds = seeds
        self._readback = readback
        self._error_boundary = error_boundary
        scope = StepScope()
        self._scope = weakref.ref(scope)
        self._inside = self._nested = self._orphaned = self._recorded = self._due = False
        # Whether an inner step of the running step has changed weights, and whether the previous step had an inner one.
        self._updated = self._nests = False
        self._entry = 0
        self._measurable = MeasurableParameters()
        self._steppers = frozenset(map(id, (optimizer, *outer)))
        self._samples = self._unbegun = 0
        self._skips = SkipCounts()
        self._delivered = DeliveryProgress()
        self._found_inf: torch.Tensor | None = None
        self._found_inf_of_graph: torch.Tensor | None = None
        self._optimizer_id = id(optimizer)
        self._on_close = on_close
        self._finalizer = weakref.finalize(optimizer, _finalize, self, self._delivered, finalized)
        self._finalizer.atexit = False
        # Weak reference: a watch may stay in the queue `finalized`, and must not keep the scaler alive meanwhile.
        self._scaled_steps: weakref.ref[ScaledSteps] | None = None
        if scaler is not None:
            scaled_steps = ScaledSteps.of(scaler)
            scaled_steps.add(self.key, self)
            self._scaled_steps = weakref.ref(scaled_steps)
        # Ownership is one-way (optimizer -> hooks -> watch), so that the watch never keeps model or optimizer alive.
        self._hooks = [LastHook(each, untraced(self._before, scope)) for each in (optimizer, *outer) if hooks]
        self._post_hooks = [
            each.register_step_post_hook(untraced(self._after)) for each in (optimizer, *outer) if hooks
        ]
        self.by_hand = not hooks

    @property
    def key(self) -> int:
        """The ``id()`` of the watched optimizer."""
        return self._optimizer_id

    @property
    def watched(self) -> tuple[torch.nn.Module, torch.optim.Optimizer] | None:
        """Model and optimizer; None if one of them was garbage-collected."""
        model, optimizer = self._model(), self._optimizer()
        return None if model is None or optimizer is None else (model, optimizer)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The watched optimizer; None if it was garbage-collected."""
        return self._optimizer()

    @property
    def has_seen_a_step(self) -> bool:
        """Whether any step was completed, or skipped by the watched scaler."""
        return self.steps > 0 or self._unbegun > 0

    @property
    def _capture(self) -> Capture | None:
        scope = self._scope()
        return None if scope is None else scope.capture

    @_capture.setter
    def _capture(self, capture: Capture | None) -> None:
        if (scope := self._scope()) is not None:
            scope.capture = capture

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark one step manually, for a watch created with ``watch(..., hooks=False)``.

        Use it if ``optimizer.step()`` is compiled or replayed from a CUDA graph. Gradients are read on entry. With
        hooks this does nothing, so that no step counts twice. An exception propagates, and the step does not count.
        """
        optimizer = self._optimizer() if self.by_hand else None
        if optimizer is None:
            yield
            return
        scope = StepScope()
        self._scope = weakref.ref(scope)
        self._before(optimizer, (), {})
        try:
            yield
        except BaseException:
            self._inside = False
            raise
        self._after(optimizer, (), {})

    def skip(self) -> None:
        """Record a step that a watched scaler skipped because gradients were not finite."""
        with self._error_boundary.guard("skipped step"):
            self._unbegun += 1
            self._submit(self._optimizer(), None, skipped=True)

    def note_overflow(self, scaler: Any) -> None:
        """Store the scaler's ``found_inf`` of the manually marked step that it just made or skipped.

        Every replay of a captured CUDA graph writes ``found_inf`` to the same memory, so that its tensor is stored
        once.
        """
        optimizer = self._optimizer()
        with self._error_boundary.guard("found_inf"):
            found = None if optimizer is None else found_inf_of(scaler, optimizer)
            if recording():
                self._found_inf_of_graph = found
            else:
                self._found_inf, self._found_inf_of_graph = found, None

    def close(self) -> None:
        """Stop watching and remove all hooks; idempotent."""
        for hook in self._hooks:
            hook.remove()
        for handle in self._post_hooks:
            handle.remove()
        self._hooks, self._post_hooks = [], []
        self.by_hand = False
        scaled_steps = None if self._scaled_steps is None else self._scaled_steps()
        if scaled_steps is not None:
            scaled_steps.remove(self.key, self)
        self._clock.forget(self.name)
        self._delivered.closed = True
        if self._finalizer.detach() is not None:  # else it was closed before, or is queued in `finalized`
            self._on_close(self)

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        with self._hook_timer:
            return self._entered(optimizer, args, kwargs)

    def _entered(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._inside and active_steps(self._steppers) > 1:
            self._nested = True
            if not self._due or self._updated:
                return None
            # The innermost step before weights change uses the gradients: an outer one may have changed them since.
            self._capture = None
        else:
            self._inside, self._nested, self._updated, self._capture = True, False, False, None
            self._due, self._found_inf = False, None
            if not self._wanted() or recording():
                return None
            self._due = True
            if self._nests:  # measure only in the inner step, which is expected as in the previous step
                return None
        self._entry += 1
        # A closure computes the gradients later, so that at this point any parameter may still receive one.
        keyword = callable(kwargs.get("closure"))
        closure = kwargs["closure"] if keyword else args[1] if len(args) > 1 and callable(args[1]) else None
        self._begin(optimizer, everything=closure is not None)
        if closure is None:
            self._read()
            return None
        if keyword:
            return args, {**kwargs, "closure": self._capturing(closure)}
        return (args[0], self._capturing(closure), *args[2:]), kwargs

    def _wanted(self) -> bool:
        with self._error_boundary.guard("overhead budget"):
            return self.schedule.wants(self.steps)
        return False

    def _capturing(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a closure to read the gradients after its first call, which evaluates the starting point of the step."""
        calls: Iterator[int] = count()
        entry = self._entry  # an inner step has a capture of its own

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = closure(*args, **kwargs)
            if next(calls) == 0 and entry == self._entry:
                with self._hook_timer:
                    self._read()
            return result

        return wrapped

    def _begin(self, optimizer: torch.optim.Optimizer, *, everything: bool) -> None:
        with self._error_boundary.guard("gradient capture"), torch.no_grad():
            model = self._model()
            if model is None:
                self._warn_orphaned()
                return
            chosen = self._measurable(self._sampling.selection.names(model, optimizer))
            used = [pair for pair in chosen if everything or pair[1].grad is not None or is_distributed(pair[1])]
            used_names = {name for name, _ in used}
            idle = [name for name, parameter in chosen if parameter.requires_grad and name not in used_names]
            scale = self._pending_scale(optimizer)
            self._capture = Capture(self._sampling.measures, used, optimizer, model, idle=idle, scale=scale)

    def _pending_scale(self, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
        """Return the loss scale of a step marked by hand, which begins before the scaler divides by it."""
        scaled_steps = None if self._scaled_steps is None or not self.by_hand else self._scaled_steps()
        return None if scaled_steps is None else pending_scale(scaled_steps.scaler, optimizer)

    def _read(self) -> None:
        capture, self._capture = self._capture, None
        if capture is None:
            return
        with self._error_boundary.guard("gradient capture"), torch.no_grad():
            capture.read()
            self._capture = capture

    def _warn_orphaned(self) -> None:
        if not self._orphaned:
            self._orphaned = True
            _logger.warning(
                "A watched model was freed while its optimizer still steps, so that its gradients are no longer measured. "
                "Keep a reference to the model, because watch() keeps none."
            )

    def _after(self, optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        before = self.steps
        with self._hook_timer:
            self._left(optimizer)
        if self.steps > before:
            with self._clock.stopwatch.own, self._error_boundary.guard("overhead budget"):
                self.schedule.passed(before, self._hook_timer.take(), self._clock.epoch_ids)

    def _left(self, optimizer: torch.optim.Optimizer) -> None:
        if self._nested and active_steps(self._steppers) > 1:
            self._updated = True
            return
        self._nests, self._inside, self._nested = self._nested, False, False
        for hook in self._hooks:
            hook.stay_last()
        capture, self._capture = self._capture, None
        if recording():
            self._warn_recorded()
            return
        with self._error_boundary.guard("step"):
            self._submit(optimizer, capture)
        self.steps += 1
        self._samples += self._due
        self._due = False

    def _warn_recorded(self) -> None:
        """Warn once that replaying the captured graph runs no hooks; the capture itself does not count as a step."""
        if not self._recorded:
            self._recorded = True
            _logger.warning(
                "optimizer.step() is recorded into a CUDA graph. A replay calls no hook, so that its steps are not counted "
                "and their gradients are absent. Call watch(..., hooks=False), and replay in `with watch.step():`."
            )

    def _submit(
        self, optimizer: torch.optim.Optimizer | None, capture: Capture | None, *, skipped: bool = False
    ) -> None:
        at = self._clock.now()
        inputs = self._clock.take(self.name, primary=self.primary)
        parts, sampled = [], None  # type: ignore[var-annotated]  # what finish() returns
        if capture is not None:
            with self._error_boundary.guard("gradient capture"), torch.no_grad():
                parts, sampled = capture.finish(self._seeds())
                if capture.fault is not None:
                    raise capture.fault
        found_inf = None if skipped or optimizer is None else self._overflow(optimizer)
        known, moving = step_scalars(optimizer, inputs, self._error_boundary, found_inf=found_inf)
        with self._error_boundary.guard("found_inf"):
            self._skips.count(known, moving, sampled=self._due and not skipped)
        if not skipped:
            known |= self._own_numbers()
        tensors, packing = pack(parts, moving)
        metadata = StepMetadata(
            env_id=self._clock.env_id,
            model_name=self.name,
            step=self.steps,
            primary=self.primary,
            time_unix_nano=at,
            duration=self._clock.lap(at) if self.primary else None,
            epoch_ids=self._clock.epoch_ids,
            sampled=sampled,
            packing=packing,
            known=known,
            skipped=skipped,
            unbegun=self._unbegun,
            samples=self._samples,
            delivered=self._delivered,
            clip_limit=inputs.clip_limit,
        )
        # Drop these references before waking the worker: freeing a tensor releases the GIL, and the worker would run
        # first.
        del inputs, moving, found_inf
        self._readback.submit(Transfer(tensors), metadata, hurry=skipped or sampled is not None)

    def _overflow(self, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
        """Return the ``found_inf`` of the step that just happened."""
        if not self.by_hand:
            return overflow(optimizer)
        noted, self._found_inf = self._found_inf, None
        found = overflow(optimizer) if noted is None else noted
        return self._found_inf_of_graph if found is None else found

    def _own_numbers(self) -> dict[str, float]:
        """Return the scalars about overhead and sampling interval of this step."""
        interval, before = self.schedule.interval, self._interval
        self._interval = interval
        if self.steps % (interval or WINDOW):
            return {INTERVAL: float(interval)} if interval != before else {}
        overhead = self._clock.overhead.close() if self.primary else None
        return ({INTERVAL: float(interval)} if interval else {}) | ({} if overhead is None else {OVERHEAD: overhead})


def check_model(model: object) -> None:
    """Check the type of the model passed to ``watch()``.

    Raises:
        WatchError: It is not a module.
    """
    if not isinstance(model, torch.nn.Module):
        raise WatchError(f"watch() needs a torch.nn.Module, not a {type(model).__name__}.")


def check_watchable(model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
    """Check the arguments of ``watch()``, with the optimizer unwrapped.

    Raises:
        WatchError: The scaler has the wrong type, the optimizer has none of the model's parameters, or the model is
            wrapped in a way that hides its parameters.
    """
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise WatchError(f"watch(scaler=...) needs a torch.amp.GradScaler, not a {type(scaler).__name__}.")
    reason = unsupported(model)
    if reason is not None:
        raise WatchError(reason)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not trained & {id(parameter) for parameter in model.parameters()}:
        raise WatchError(
            f"The {type(optimizer).__name__} optimizer has none of the parameters of {type(model).__name__}. It may "
            "have been built for another model, or before the model's parameters were replaced. Build it from "
            "model.parameters()."
        )


def _finalize(watch: Watch, delivered: DeliveryProgress, finalized: "deque[Watch] | None") -> None:
    # The garbage collector runs this inside any frame, even while that frame holds a lock: do not acquire locks here.
    delivered.closed = True
    if finalized is not None:
        finalized.append(watch)
