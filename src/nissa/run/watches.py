"""Watches of a run: opened for the optimizers of its environments, removed when they are closed or garbage-collected."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch.nn.parameter import is_lazy

from nissa.errors import WatchError
from nissa.gradients.backward_watch import BackwardWatch
from nissa.gradients.program_audit import ProgramAudit
from nissa.gradients.unwrapping import UnwrappedOptimizer, check_model, check_watchable, unwrap
from nissa.gradients.watch import Watch
from nissa.gradients.watch_group import WatchGroup, are_several, named, open_group, step_in_backward
from nissa.printable import MOST_NAME, printable_name, shown
from nissa.run.replicas import checked_group

if TYPE_CHECKING:
    import torch

    from nissa.analytics.blueprints import BlueprintAnalytics
    from nissa.config import TelemetryConfig
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.distributed.replica_groups import Replicas
    from nissa.gradients.readback import Readback
    from nissa.gradients.step_metadata import RowMetadata, SamplingPlan
    from nissa.gradients.step_processor import StepProcessor
    from nissa.gradients.steps import StepClock
    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.hub.program_facts import ForwardModes
    from nissa.run.replicas import RunReplicas
    from nissa.seeds.lifecycle import SeedTable

_logger = logging.getLogger("nissa")


class Components(Protocol):
    """Components of a run that its watches use; `Runtime` has them."""

    closed: bool
    config: "TelemetryConfig"
    analytics: "BlueprintAnalytics"
    error_boundary: "ErrorBoundary"
    readback: "Readback[RowMetadata]"
    replicas: "RunReplicas"
    sampling: "SamplingPlan"
    step_processor: "StepProcessor"
    table: "SeedTable"

    def clock(self, env_id: str | None) -> "StepClock":
        """Return the step clock of an environment."""

    def tracker(self, env_id: str | None) -> "DiagnosticTracker":
        """Return the diagnostic tracker of an environment."""


class Watches:
    """Open watches of all environments.

    Args:
        runtime: Components of the run that a watch uses.

    Attributes:
        finalized: Watches whose optimizers were garbage-collected. A finalizer can run between any two bytecodes, even
            inside a critical section, so it must not acquire a lock and only appends here. `remove_finalized` and `add`
            remove the watches.
        resumed_steps: Steps before the checkpoint that the run continues from, by environment and watch, until they are
            watched again.
    """

    def __init__(self, runtime: Components) -> None:
        self.finalized: deque[Watch] = deque()
        self.resumed_steps: dict[tuple[str | None, str | None], int] = {}
        self._runtime = runtime
        self._watches: dict[int, tuple[str | None, Watch]] = {}
        self._warned: set[str | None] = set()

    def add(
        self,
        env_id: str | None,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer | Mapping[Any, torch.optim.Optimizer] | Iterable[torch.optim.Optimizer]",
        *,
        name: str | None,
        scaler: "torch.amp.GradScaler | None",
        hooks: bool,
        replicas: "Replicas" = "auto",
    ) -> Watch | WatchGroup:
        """Watch one or several optimizers of a model for an environment. Nothing is changed if one cannot be watched.

        Raises:
            WatchError: The model and the optimizer cannot be watched together, the optimizer is watched already, or
                the run has ended.
        """
        if self._runtime.closed:
            raise WatchError("The run has ended; start a new run with nissa.start(), and call watch() of the new run.")
        _check_name(name)
        check_model(model)
        self.remove_finalized()
        if are_several(optimizer):
            several: Any = optimizer if isinstance(optimizer, Mapping) else list(optimizer)  # type: ignore[arg-type]
            return self._watch_several(env_id, model, several, name=name, scaler=scaler, hooks=hooks, replicas=replicas)
        unwrapped = self._check(model, optimizer, scaler, hooks=hooks)
        self._check_names(env_id, name)
        return self._open(env_id, model, unwrapped, name=name, hooks=hooks, replicas=replicas)

    def _watch_several(
        self,
        env_id: str | None,
        model: "torch.nn.Module",
        several: Any,
        *,
        name: str | None,
        scaler: Any,
        hooks: bool,
        replicas: "Replicas",
    ) -> Watch | WatchGroup:
        in_backward = step_in_backward(several)
        if in_backward is not None:
            if replicas not in {None, "auto"}:
                raise WatchError(
                    "The weights of optimizers that step during the backward pass are not compared between ranks: leave out "
                    "replicas=."
                )
            return self._watch_backward(env_id, model, in_backward, name=name, scaler=scaler, hooks=hooks)
        unwrapped = {key: self._check(model, each, scaler, hooks=hooks) for key, each in named(several).items()}
        names = {key: key if name is None else f"{name}.{key}" for key in unwrapped}
        self._check_names(env_id, *names.values())

        def open_(key: str, **member: Any) -> Watch:
            return self._open(env_id, model, unwrapped[key], name=names[key], hooks=hooks, replicas=replicas, **member)

        clock = self._runtime.clock(env_id)
        return open_group(name, names, self._runtime.sampling.schedule(name), lambda: clock.epoch_ids, open_)

    def _check(self, model: "torch.nn.Module", optimizer: Any, scaler: Any, *, hooks: bool) -> UnwrappedOptimizer:
        unwrapped = unwrap(optimizer, scaler, hooks=hooks)
        check_watchable(model, unwrapped.optimizer, unwrapped.scaler)
        if self.is_watched(unwrapped.optimizer):
            raise WatchError(
                f"This {type(unwrapped.optimizer).__name__} optimizer is watched already, so that its steps are measured: "
                "leave out this call. To watch it with other arguments, close() the handle that the first watch() returned."
            )
        return unwrapped

    def _check_names(self, env_id: str | None, *names: str | None) -> None:
        taken = {other.name for other in self.of(env_id)}
        for name in names:
            if name in taken:
                raise WatchError(
                    "This environment watches several optimizers, so their streams need different names: "
                    f"call watch(model, optimizer, name=...) with a name other than {name!r}. If this optimizer replaces "
                    "the other one, close() the handle of that one first; the steps are counted on."
                )

    def _open(
        self,
        env_id: str | None,
        model: "torch.nn.Module",
        unwrapped: UnwrappedOptimizer,
        *,
        name: str | None,
        hooks: bool,
        replicas: "Replicas",
        **member: Any,
    ) -> Watch:
        checked_group(replicas)  # before anything is changed
        self._runtime.sampling.selection.warn_unmatched(model, unwrapped.optimizer)
        audit = self._audit(model, hooks=hooks)
        optimizers = unwrapped.optimizer, *unwrapped.outer
        forward = None if audit is None else audit.forward
        watch = Watch(
            model,
            unwrapped.optimizer,
            name=name,
            hooks=hooks,
            scaler=unwrapped.scaler,
            outer=unwrapped.outer,
            audit=audit,
            replicas=self._runtime.replicas.probe(env_id, name, model, optimizers, replicas, forward),
            **member,
            **self._components(env_id, name),
        )
        return self._register(env_id, model, watch)

    def _audit(self, model: "torch.nn.Module", *, hooks: bool) -> ProgramAudit | None:
        """Return the collector of facts for contracts; None if they are switched off."""
        if not self._runtime.config.diagnostics.contracts:
            return None
        return ProgramAudit(model, self._held, self._runtime.error_boundary, hooks=hooks)

    def _held(self) -> "Iterator[torch.Tensor]":
        """Yield the parameters of all watched optimizers."""
        for _, watch in list(self._watches.values()):
            optimizer = watch if isinstance(watch, BackwardWatch) else watch.optimizer
            for group in () if optimizer is None else optimizer.param_groups:
                yield from group["params"]

    def _watch_backward(
        self,
        env_id: str | None,
        model: "torch.nn.Module",
        optimizers: list[Any],
        *,
        name: str | None,
        scaler: Any,
        hooks: bool,
    ) -> BackwardWatch:
        """Watch optimizers that step during the backward pass, one per parameter."""
        if scaler is not None or not hooks:
            raise WatchError(
                "Optimizers that step during the backward pass, one per parameter, are watched with hooks and without a "
                "GradScaler: leave out hooks= and scaler=."
            )
        found = [self._check(model, each, None, hooks=True).optimizer for each in optimizers]
        self._check_names(env_id, name)
        watch = BackwardWatch(model, found, name=name, **self._components(env_id, name))
        self._runtime.sampling.selection.warn_unmatched(model, watch)
        self._register(env_id, model, watch)
        return watch

    def _components(self, env_id: str | None, name: str | None) -> dict[str, Any]:
        """Return the arguments of a watch that come from the run."""
        self._continue_count(env_id, name)
        return {
            "primary": not any(other.primary for other in self.of(env_id)),
            "sampling": self._runtime.sampling,
            "clock": self._runtime.clock(env_id),
            "seeds": partial(self._runtime.table.slots.growing, env_id),
            "readback": self._runtime.readback,
            "error_boundary": self._runtime.error_boundary,
            "on_close": self._remove,
            "finalized": self.finalized,
        }

    def _continue_count(self, env_id: str | None, name: str | None) -> None:
        """Continue the count of the steps that a checkpoint was saved with."""
        steps = self.resumed_steps.pop((env_id, name), None)
        if steps is not None:
            counts = self._runtime.clock(env_id).counts(name)
            counts.steps = steps
            counts.delivered.resume(steps)

    def _register(self, env_id: str | None, model: "torch.nn.Module", watch: Watch) -> Watch:
        self._watches.update((key, (env_id, watch)) for key in watch.keys)
        if watch.primary:
            self._runtime.analytics.set_host_parameters(sum(map(_size, model.parameters())), env_id)
        return watch

    def step_counts(self) -> dict[tuple[str | None, str | None], int]:
        """Return the number of steps by environment and watch, with those of a checkpoint that are not watched again yet."""
        watches = list(self._watches.values())
        return self.resumed_steps | {(env_id, watch.name): watch.completed_steps for env_id, watch in watches}

    def watched(self, env_id: str | None) -> "tuple[torch.nn.Module, torch.optim.Optimizer] | None":
        """Return the model and optimizer whose steps count as the environment's steps; None if nothing is watched."""
        return next((watch.watched for watch in self.of(env_id) if watch.primary), None)

    def forward_modes(self, env_id: str | None) -> "ForwardModes | None":
        """Return the modes of the forward passes since the last step of the first model with hooks; None without one."""
        for watch in self.of(env_id):
            modes = None if watch.audit is None else watch.audit.modes()
            if modes is not None:
                return modes
        return None

    def is_watching(self, env_id: str | None) -> bool:
        """Whether an environment has a watched optimizer, whose next step carries the values that are logged."""
        return any(env == env_id for env, _ in list(self._watches.values()))

    def of(self, env_id: str | None) -> list[Watch]:
        """Return the watches of an environment whose optimizers exist."""
        # Iterate over a copy: the worker may remove the watch of a garbage-collected optimizer at the same time.
        watches = dict.fromkeys(list(self._watches.values()))
        return [watch for env, watch in watches if env == env_id and watch.optimizer is not None]

    def is_watched(self, optimizer: "torch.optim.Optimizer") -> bool:
        """Whether an optimizer is watched."""
        # Compare the objects as well: the new optimizer may have the id of a freed one whose watch is not removed yet.
        _, watch = self._watches.get(id(optimizer), (None, None))
        return watch is not None and watch.watches(optimizer)

    def remove_finalized(self) -> None:
        """Remove the watches whose optimizers were garbage-collected."""
        while self.finalized:
            with suppress(IndexError):  # another thread removed the last one
                self._remove(self.finalized.popleft())

    def _remove(self, closed: Watch) -> None:
        env_id, watch = self._watches.get(closed.key, (None, None))
        if watch is not closed:  # removed already
            return
        for key in closed.keys:
            self._watches.pop(key, None)
        self._runtime.step_processor.forget(env_id, closed.name)
        closed.schedule.close()
        self._runtime.tracker(env_id).rules.forget(closed.name)
        remaining = self.of(env_id)
        if closed.primary and remaining:  # one watch must continue to count the environment's steps
            remaining[0].primary = True

    def warn_without_steps(self, env_id: str | None, reason: str) -> None:
        """Log once per environment that its watched optimizers have made no step, although steps were expected."""
        watches = self.of(env_id)
        if not watches or env_id in self._warned or any(each.has_seen_a_step for each in watches):
            return
        self._warned.add(env_id)
        names = ", ".join(sorted({type(each.optimizer).__name__ for each in watches}))
        _logger.warning(
            "No step of the watched optimizer (%s) was seen, although %s: it is not the one that the training loop steps, "
            "or its step() runs no hooks. Pass the optimizer whose step() changes the weights to watch(), or watch with "
            "hooks=False and mark each step with `with handle.step():`.",
            names,
            reason,
        )

    def close(self) -> None:
        """Close all watches, which removes their hooks."""
        for _, watch in list(self._watches.values()):
            watch.close()


def _check_name(name: object) -> None:
    if name is None or (isinstance(name, str) and printable_name(name) == name != ""):
        return
    raise WatchError(
        f"watch(name=...) takes text of 1 to {MOST_NAME} characters without line breaks and control characters, not "
        f"{shown(name)}: the name becomes an attribute of the watch's metrics."
    )


def _size(parameter: "torch.Tensor") -> int:
    """Return the number of elements; 0 for a parameter of a lazy module, which has no shape before the first batch."""
    return 0 if is_lazy(parameter) else parameter.numel()
