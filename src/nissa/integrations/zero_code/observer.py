"""Observer of a process: discovers optimizers, and measures them as ``run.watch`` does."""

import atexit
import functools
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import nissa
from nissa.distributed.rank import Rank
from nissa.errors import NissaError
from nissa.gradients.hooks import untraced
from nissa.gradients.phases import FORWARD
from nissa.gradients.watch import Watch
from nissa.integrations.callers import calling
from nissa.integrations.patches import Patches
from nissa.integrations.zero_code.early_warnings import EarlyWarnings
from nissa.integrations.zero_code.losses import ObservedLosses
from nissa.integrations.zero_code.model_search import JointModel, find_model, optimizers_alive
from nissa.integrations.zero_code.passes import DataPasses
from nissa.integrations.zero_code.unobserved import UnobservedSummary
from nissa.run.observation import is_watched, log_backward_value, phase_timer, record_warning
from nissa.run.run import Run

P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger("nissa")

_VALIDATION: Final = ("validation loss and accuracy", "run.validate(loss=..., accuracy=...)")
_EPOCHS: Final = ("epochs", "with run.epoch(number):")
_LOSS: Final = ("the training loss", "run.log_loss(loss)")
_PASSES: Final = ("the time of forward and backward", "run.watch(the module that the loop calls, optimizer)")
_SCALE: Final = ("the scale of the training loss", "run.log_loss(loss, scale=...)")

_explicit: "weakref.WeakSet[Observer]" = weakref.WeakSet()
"""Installed observers of a tracker, during which that of the process stands back."""


def contained(method: Callable[P, R]) -> Callable[P, R | None]:
    """Catch faults of a method of `Observer`: they disable it, are logged once, and never reach the script."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        observer: Any = args[0]
        if observer.disabled:
            return None
        try:
            return method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is ours, and the script continues
            observer.disable(error)
            return None

    return guarded


class Observer:
    """Watches each optimizer of the process from its first step on.

    The global step hook of torch runs before the hooks of an optimizer. It only discovers the optimizer, and logs what was
    observed for the step that begins. An active run of the script is joined; otherwise the first step starts one.

    Args:
        run: Run to join; None joins the active one, or starts one at the first step.
        owned: Whether the run is ended with the observation, and its epochs are derived from data.
        first_epoch: Number of the first epoch.

    Attributes:
        run: The run; None before the first step.
        losses: Losses of the step that is being prepared.
        patches: Attributes that are replaced until `uninstall`.
        disabled: Whether a fault has ended the observation.
    """

    def __init__(self, run: Run | None = None, *, owned: bool = False, first_epoch: int = 0) -> None:
        self.disabled = False
        self._pid = os.getpid()
        self.patches = Patches()
        self._implicit = run is None
        self._handle: Any = None
        self._early_warnings = EarlyWarnings()
        self._forget(run, owned=owned, first_epoch=first_epoch)

    def _forget(self, run: Run | None = None, *, owned: bool = False, first_epoch: int = 0) -> None:
        self.run: Run | None = run
        self._owned = owned
        self._watches: weakref.WeakKeyDictionary[torch.optim.Optimizer, Watch | None] = weakref.WeakKeyDictionary()
        # A watch keeps no reference to its model; the container of several models would be freed.
        self._models: weakref.WeakKeyDictionary[torch.optim.Optimizer, torch.nn.Module] = weakref.WeakKeyDictionary()
        self._releases: list[Callable[[], None]] = []
        self.losses = ObservedLosses()
        self._passes = DataPasses(
            self._begin_epoch, self._end_epoch, self._evaluated, self._in_eval_mode, first=first_epoch
        )
        self._several = False
        self._loss_seen = False

    def install(self) -> None:
        """Register the global hook, and observe losses and data."""
        if not self._implicit:
            _explicit.add(self)
        if self._owned:
            atexit.register(self._at_exit)
        self._handle = register_optimizer_step_pre_hook(untraced(self._before_step))
        if self._implicit:
            self._early_warnings.install()
        self.losses.install(self.patches, self._containing)
        self._passes.install(self.patches, self._containing)
        reference = weakref.ref(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _in_child(reference))

    def uninstall(self) -> None:
        """Restore torch, stop watching, and end a run that was started here."""
        self._remove_hooks()
        self._at_exit()
        run, self.run = self.run, None
        atexit.unregister(self._at_exit)
        for watch in list(self._watches.values()):
            if watch is not None:
                watch.close()
        while self._releases:
            self._releases.pop()()
        if run is not None and self._owned:
            run.close()
        self._watches.clear()
        self._models.clear()

    def disable(self, error: Exception) -> None:
        """End the observation after a fault. Optimizers that are watched stay watched."""
        self.disabled = True
        self._remove_hooks()
        if isinstance(error, NissaError):
            _logger.error("This script is not observed: %s", error)
        else:
            _logger.error("Observing the script failed; training continues without.", exc_info=error)

    def in_child(self) -> None:
        """Forget the parent's run in a forked process; the first step of the child starts its own."""
        if not self._implicit:  # the tracker that it belongs to is in the parent
            self._remove_hooks()
        elif not self.disabled and self._handle is not None:
            self._passes.uninstall()
            self.patches.restore()
            self._forget()
            self._pid = os.getpid()
            self.losses.install(self.patches, self._containing)
            self._passes.install(self.patches, self._containing)

    def _containing(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        return functools.partial(self._observe, function)

    @contained
    def _observe(self, function: Callable[[Any], None], observed: object) -> None:
        function(observed)

    def _remove_hooks(self) -> None:
        _explicit.discard(self)
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self._early_warnings.close()
        self._passes.uninstall()
        self.patches.restore()

    @property
    def owned(self) -> bool:
        """Whether the run is ended with the observation."""
        return self._owned

    @property
    def next_epoch(self) -> int:
        """Number of the epoch in which a training continues that stops now."""
        return self._passes.next_epoch

    @property
    def stepped(self) -> bool:
        """Whether a step of an optimizer has begun."""
        return bool(self._watches)

    # Steps.

    @contained
    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if (self._implicit and _explicit) or self._ended():
            return None
        if optimizer not in self._watches:
            self._watches[optimizer] = self._discover(optimizer)
        watch = self._watches[optimizer]
        if watch is None:
            return None
        if self._owned and self.run is not None and not self.run.closed:
            samples = self._passes.stepped()
            if samples:
                self.run.log_items(samples=samples)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._log_loss(watch)
            return None
        observed = self._with_loss(closure, watch)
        return (
            (args, {**kwargs, "closure": observed}) if "closure" in kwargs else ((args[0], observed, *args[2:]), kwargs)
        )

    def _ended(self) -> bool:
        """Whether the run has ended, and no other one has begun: then the script wants none."""
        if self.run is None or not self.run.closed:
            return False
        self._watches.clear()  # those of the run that has ended; another one watches anew
        return nissa.current_run() is None

    def _discover(self, optimizer: torch.optim.Optimizer) -> Watch | None:
        run = self._the_run()
        if is_watched(run, optimizer):  # the script, or a trainer's callback, does it
            return None
        found = find_model(optimizer)
        if found is None:
            _logger.warning(
                "The %s optimizer is not measured: no module owns its parameters.", type(optimizer).__name__
            )
            return None
        model = self._models[optimizer] = found.watched
        name, scaler = self._name(found.model), calling(torch.amp.GradScaler)
        try:
            watch = run.watch(model, optimizer, name=name, scaler=scaler)
        except NissaError as error:
            _logger.warning("The %s optimizer is not measured: %s", type(optimizer).__name__, error)
            return None
        timer = phase_timer(run)
        if timer is not None and found.called is not model:
            self._releases.append(timer.follow(found.called))
        return watch

    def _the_run(self) -> Run:
        early, active = self._early_warnings.take(), nissa.current_run()
        if active is not None:
            if active is not self.run:
                self.run, self._owned = active, False
            return active
        self._several = len(optimizers_alive()) > 1
        first_rank = Rank.discover(os.environ).rank in {None, 0}
        self.run = run = nissa.start(backends=[UnobservedSummary(self.missing)] if first_rank else [])
        self._owned = run.replaceable = True
        if first_rank and not run.config.console.enabled:
            run.hub.remove_backend(UnobservedSummary.name)
        for warning in early:
            record_warning(run, *warning)
        atexit.register(self._at_exit)  # called before the handler of the run, which is older
        return run

    def _name(self, model: torch.nn.Module) -> str | None:
        """Return a name for a watch: None for the only one, else the class of the model."""
        names = {watch.name for watch in self._watches.values() if watch is not None}
        if not names and not self._several:
            return None
        kind = type(model).__name__
        return next(name for name in _numbered(kind) if name not in names)

    def _with_loss(self, closure: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
        """Return a closure that logs the loss of its first evaluation, which the measured gradients belong to."""
        first = True

        def observed(*args: Any, **kwargs: Any) -> Any:
            nonlocal first
            result = closure(*args, **kwargs)
            if first:
                self._log_loss(watch)
            else:
                self.losses.take()
            first = False
            return result

        return observed

    @contained
    def _log_loss(self, watch: Watch) -> None:
        loss = self.losses.take()
        if loss is None or self.run is None or self.run.closed:
            return
        if loss.is_known:
            self._loss_seen = True
            self.run.log_loss(loss.value, model=watch.name)
        else:
            log_backward_value(self.run, loss.value, model=watch.name)

    # Data.

    @contained
    def _begin_epoch(self, number: int) -> None:
        if self.run is not None and not self.run.closed:
            self.run.begin_epoch(number)

    @contained
    def _end_epoch(self) -> None:
        if self.run is not None and not self.run.closed:
            self.run.end_epoch()

    @contained
    def _evaluated(self) -> None:
        # A tracker receives the results of its evaluations itself.
        if self.run is not None and self._owned and self._implicit and not self.run.closed:
            self.run.validate()

    def _in_eval_mode(self) -> bool:
        models = [
            module
            for model in list(self._models.values())
            for module in (model.children() if isinstance(model, JointModel) else (model,))
        ]
        return bool(models) and not any(module.training for module in models)

    def _at_exit(self) -> None:
        regular = getattr(sys, "last_value", None) is None
        if self._pid == os.getpid() and self._owned and regular and self.run is not None and not self.run.closed:
            self._passes.close()

    def missing(self) -> Iterator[tuple[str, str]]:
        """Yield what could not be observed, with the line of code that adds it."""
        if not self._loss_seen:
            yield _SCALE if self.losses.unknown else _LOSS
        if not self._passes.epochs:
            yield _EPOCHS
        timer = None if self.run is None else phase_timer(self.run)
        if timer is not None and FORWARD not in timer.observed:
            yield _PASSES
        yield _VALIDATION


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _in_child(reference: "weakref.ref[Observer]") -> None:
    observer = reference()
    if observer is not None:
        observer.in_child()
