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
from nissa.gradients.capture import Capture
from nissa.gradients.hooks import LastHook, active_steps, closure_of, recording, untraced
from nissa.gradients.loss_scaling import ScaledSteps, found_inf_of, overflow, pending_scale
from nissa.gradients.lost_gradients import reason_of_loss
from nissa.gradients.overhead import HookTimer
from nissa.gradients.phases import OptimizerPhase
from nissa.gradients.readback import Readback
from nissa.gradients.selection import UNNAMED, MeasurableParameters
from nissa.gradients.step_metadata import (
    INTERVAL,
    OVERHEAD,
    WINDOW,
    RowMetadata,
    SamplingPlan,
    StepMetadata,
    WatchState,
)
from nissa.gradients.step_row import StepRow
from nissa.gradients.step_scalars import step_scalars

if TYPE_CHECKING:
    from collections import deque

    from torch.utils.hooks import RemovableHandle

    from nissa.gradients.program_audit import ProgramAudit
    from nissa.gradients.replica_probe import ReplicaProbe
    from nissa.gradients.rounds import RoundMember
    from nissa.gradients.sampling import SamplingSchedule
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

    def __init__(self) -> None:
        # For optimizers that step during the backward pass: captures by optimizer, and the selected parameters.
        self.captures: dict[int, Capture] = {}
        self.chosen: dict[int, tuple[str, torch.nn.Parameter]] = {}


class Watch:
    """A watched optimizer; returned by ``run.watch``.

    Attributes:
        name: Name of the model; None if the environment has only one.
        primary: Whether its steps count as the steps of its environment.
        schedule: Sampling schedule.
        by_hand: Whether steps are marked with `step` because no hooks are registered.

    Args:
        outer: Wrappers around the optimizer whose step hooks run as well.
        member: Sampling schedule of an optimizer that shares its model with others; None creates one.
        on_close: Called by `close`.
        audit: Collector of facts for contracts; None collects none.
        replicas: Reader of digests of weights, to compare them between ranks; None compares none.
        finalized: Queue of watches whose optimizer was garbage-collected. A finalizer may run inside any frame, even
            while that frame holds a lock, so that it may only append. The owner drains the queue and releases the watch
            as after `close`.
    """

    _in_backward = False

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
        member: "RoundMember | None" = None,
        sampling: SamplingPlan,
        clock: "StepClock",
        seeds: Seeds,
        readback: Readback[RowMetadata],
        error_boundary: "ErrorBoundary",
        on_close: "Callable[[Watch], None]",
        audit: "ProgramAudit | None" = None,
        replicas: "ReplicaProbe | None" = None,
        finalized: "deque[Watch] | None" = None,
    ) -> None:
        self.name, self.primary = name, primary
        self._model = weakref.ref(model)
        self._optimizer = weakref.ref(optimizer)
        self._sampling, self._clock = sampling, clock
        self._hook_timer = HookTimer(clock.stopwatch)
        self._counts = counts = clock.counts(name)
        self._before_watch = counts.steps, counts.unbegun
        self._member = member
        self.schedule: SamplingSchedule = sampling.schedule(name, counts.steps) if member is None else member
        self._interval = self.schedule.interval
        self._seeds = seeds
        self._readback = readback
        self._error_boundary = error_boundary
        scope = StepScope()
        self._scope = weakref.ref(scope)
        # _updated: an inner step of the running step has changed weights; _nests: the previous step had an inner one.
        self._inside = self._nested = self._orphaned = self._recorded = self._due = self._updated = self._nests = False
        self._entry = 0
        self._measurable = MeasurableParameters()
        self._steppers = frozenset(map(id, (optimizer, *outer)))
        self._closure = self._lost = self._suspicious = False
        self._state = WatchState()
        self._found_inf: torch.Tensor | None = None
        self._found_inf_of_graph: torch.Tensor | None = None
        self._optimizer_id = id(optimizer)
        self._on_close, self.audit, self._replicas = on_close, audit, replicas
        self._finalizer = weakref.finalize(optimizer, _finalize, self, self._state, finalized)
        self._finalizer.atexit = False
        self._scaled_steps = None if scaler is None else self._wrap(scaler)
        self._hooks: list[LastHook] = []
        self._post_hooks: list[RemovableHandle] = []
        self._phase = OptimizerPhase(clock.phases if hooks else None)
        try:
            self._register((optimizer, *outer) if hooks else (), scope, model)
        except BaseException:
            self.close()
            self.schedule.close()
            raise
        self.by_hand = not hooks

    def _wrap(self, scaler: Any) -> "weakref.ref[ScaledSteps]":
        """Report the steps that a scaler skips to this watch."""
        scaled_steps = ScaledSteps.of(scaler)
        scaled_steps.add(self.key, self)
        # Weak reference: a watch may stay in the queue `finalized`, and must not keep the scaler alive meanwhile.
        return weakref.ref(scaled_steps)

    def _register(self, optimizers: Sequence[torch.optim.Optimizer], scope: StepScope, model: torch.nn.Module) -> None:
        # Ownership is one-way (optimizer -> hooks -> watch), so that the watch never keeps model or optimizer alive.
        for each in optimizers:
            self._hooks.append(LastHook(each, untraced(self._before, scope)))
            self._post_hooks.append(each.register_step_post_hook(untraced(self._after)))
        with self._error_boundary.guard("step phases"):
            self._phase.follow(model)

    @property
    def steps(self) -> int:
        """Number of ``step()`` calls so far. An optimizer that replaces another one under the same name continues it."""
        return self._counts.steps

    @property
    def key(self) -> int:
        """The ``id()`` of the watched optimizer."""
        return self._optimizer_id

    @property
    def keys(self) -> tuple[int, ...]:
        """The ``id()`` of each optimizer whose steps are counted."""
        return (self._optimizer_id,)

    @property
    def watched(self) -> tuple[torch.nn.Module, torch.optim.Optimizer] | None:
        """Model and optimizer; None if one of them was garbage-collected."""
        model, optimizer = self._model(), self._optimizer()
        return None if model is None or optimizer is None else (model, optimizer)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The watched optimizer; None if it was garbage-collected."""
        return self._optimizer()

    def watches(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether steps of an optimizer are counted."""
        return self._optimizer() is optimizer

    @property
    def has_seen_a_step(self) -> bool:
        """Whether any step was completed, or skipped by the watched scaler."""
        return (self._counts.steps, self._counts.unbegun) != self._before_watch

    @property
    def completed_steps(self) -> int:
        """Number of completed steps, with those before a resumption. Steps whose row is not on the host count, too."""
        counts = self._counts
        return counts.delivered.steps + max(0, counts.steps - counts.delivered.calls)

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
            self._counts.unbegun += 1
            if self._member is not None:
                self._member.skipped()
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
        self._phase.close()
        scaled_steps = None if self._scaled_steps is None else self._scaled_steps()
        if scaled_steps is not None:
            scaled_steps.remove(self.key, self)
        if self.audit is not None:
            self.audit.close()
        self._clock.release(self.name, primary=self.primary)
        self._clock.forget(self.name)
        self._state.closed = True
        if self._finalizer.detach() is not None:  # else it was closed before, or is queued in `finalized`
            self._on_close(self)

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        with self._hook_timer:
            changed = self._entered(optimizer, args, kwargs)
        if not self._nested:
            self._phase.begin()
        return changed

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
            self._closure = closure_of(args, kwargs) is not None
            self._due, self._found_inf = False, None
            if self.audit is not None and not self._closure and not recording():
                self.audit.before(optimizer)
            if not self._wanted() or recording():
                return None
            self._due = True
            if self._nests:  # measure only in the inner step, which is expected as in the previous step
                return None
        self._entry += 1
        # A closure computes the gradients later, so that at this point any parameter may still receive one.
        closure = closure_of(args, kwargs)
        self._begin(optimizer, everything=closure is not None)
        if closure is None:
            self._read()
            return None
        if callable(kwargs.get("closure")):
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
                with self._hook_timer, self._phase.interrupted():
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
            self._suspicious = bool(chosen) and (not used or chosen[0][0].startswith(UNNAMED))
            scale = self._pending_scale(optimizer)
            self._capture = Capture(self._sampling.measures, used, optimizer, model, idle=idle, scale=scale)
            if self._replicas is not None:
                self._replicas.read(model, optimizer, self._counts.samples)

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
            if (self._suspicious or not capture.found_any) and not self._lost:
                self._warn_lost(found_any=capture.found_any)

    def _warn_lost(self, *, found_any: bool) -> None:
        """Warn once that no parameter has a gradient, or that the optimizer trains none of the model's parameters."""
        model, optimizer = self._model(), self._optimizer()
        if model is None or optimizer is None:
            return
        reason = reason_of_loss(model, optimizer.param_groups, found_any=found_any)
        if reason is not None:
            self._lost = True
            _logger.warning("%s Further steps without gradients are not reported.", reason)

    def _warn_orphaned(self) -> None:
        if not self._orphaned:
            self._orphaned = True
            _logger.warning(
                "A watched model was freed while its optimizer still steps, so that its gradients are no longer measured. "
                "Keep a reference to the model, because watch() keeps none."
            )

    def _after(self, optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if not self._nested or active_steps(self._steppers) <= 1:
            self._phase.end()
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
        if self.audit is not None and not self._closure:
            self.audit.after(optimizer)
        with self._error_boundary.guard("step"):
            self._submit(optimizer, capture)
        self._count()

    def _count(self) -> None:
        self._counts.steps += 1
        self._counts.samples += self._due
        self._due = self._closure = False

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
        row = self._row(optimizer, skipped=skipped)
        if capture is not None:
            self._finish(capture, row)
        self._clock.submit(row, self._counts.order, self.name, primary=self.primary)

    def _finish(self, capture: Capture, row: StepRow) -> None:
        """Add the statistics of a capture to the row of its step."""
        with self._error_boundary.guard("gradient capture"), torch.no_grad():
            row.add(*capture.finish(self._seeds()))
            if capture.fault is not None:
                raise capture.fault

    def _row(self, optimizer: torch.optim.Optimizer | None, *, skipped: bool = False) -> StepRow:
        """Return the row of the step that just ended, without gradients."""
        at, counts = self._clock.now(), self._counts
        duration = self._clock.lap(at) if self.primary else None
        inputs = self._clock.take(self.name, primary=self.primary)
        found_inf = None if skipped or optimizer is None else self._overflow(optimizer)
        known, moving = step_scalars(optimizer, inputs, self._error_boundary, found_inf=found_inf)
        with self._error_boundary.guard("found_inf"):
            counts.skips.count(known, moving, sampled=self._due and not skipped)
        if not skipped:
            known |= self._own_numbers()
        program, signals = (None, {}) if skipped or self.audit is None else self.audit.take()
        moving |= signals
        replicas, lanes = (
            (None, []) if skipped or self._replicas is None else self._replicas.take(counts.steps, program)
        )
        waits = not skipped and counts.order.stepped(
            logged=inputs.losses > 0 and not inputs.late, closure=self._closure
        )
        metadata = StepMetadata(
            env_id=self._clock.env_id,
            model_name=self.name,
            step=counts.steps,
            primary=self.primary,
            time_unix_nano=at,
            duration=duration,
            phases=self._clock.take_phases(duration, in_backward=self._in_backward) if self.primary else {},
            epoch_ids=self._clock.epoch_ids,
            known=known,
            skipped=skipped,
            unbegun=counts.unbegun,
            samples=counts.samples,
            delivered=counts.delivered,
            state=self._state,
            clip_limit=inputs.clip_limit,
            round=None if self._member is None else self._member.current(),
            program=program,
            replicas=replicas,
        )
        return StepRow(
            self._readback,
            self._error_boundary,
            inputs=inputs,
            known=known,
            moving=moving,
            waits=waits,
            metadata=metadata,
            lanes=lanes,
        )

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


def _finalize(watch: Watch, state: WatchState, finalized: "deque[Watch] | None") -> None:
    # The garbage collector runs this inside any frame, even while that frame holds a lock: do not acquire locks here.
    state.closed = True
    if finalized is not None:
        finalized.append(watch)
