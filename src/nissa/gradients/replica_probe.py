"""Digests of the weights of one watch on the training thread, to compare them between ranks.

Weights are read before the step, on sampled steps: those on which weight norms are read anyway, else the first and every n-th
one. Nothing waits for a device or for another rank.
"""

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from nissa.distributed.replica_groups import AUTO, Source, cohorts_of, several_ranks, trains_locally, wrappers
from nissa.distributed.sharding import local_part
from nissa.gradients.hooks import recording
from nissa.kernels.digest import digests
from nissa.torch_compat import join_state, uncompiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.distributed import ProcessGroup

    from nissa.distributed.replica_groups import Cohort
    from nissa.distributed.replica_thread import Channel, ReplicaThread
    from nissa.gradients.forward_probe import ForwardProbe
    from nissa.gradients.selection import HasParameters, Selection
    from nissa.hub.error_boundary import ErrorBoundary
    from nissa.hub.program_facts import ProgramFacts

_PLAIN: Final = frozenset({Tensor, nn.Parameter})
_MOST_GROUPS: Final = 32
"""Maximum number of parameter groups whose settings are reported."""

_GENERATION: Final = 1 << 40
"""Distance between the keys of steps before and after a change of `torch.distributed.algorithms.Join`."""


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """What the host knows about the weights of a step, while their digests are copied.

    Args:
        thread: Receives the reports.
        channels: Comparison of each cohort.
        key: Number by which ranks find the reports of one step.
        names: Name, dtype and shape of each parameter whose digest is copied, separated by tabs; empty if none was read.
        settings: Settings of the optimizer other than the learning rate, by group and name.
        forwards: Number of forward passes with gradients; None if no hook counts them.
        wrapped: Whether a wrapper that averages gradients ran since the last report; None if it is not known.
        received: Whether an input of the model required a gradient.
    """

    thread: "ReplicaThread"
    channels: "tuple[Channel, ...]"
    key: int
    names: tuple[str, ...] = ()
    settings: "Mapping[str, str]" = field(default_factory=dict)
    forwards: int | None = None
    wrapped: bool | None = None
    received: bool = False


@dataclass(slots=True)
class _Read:
    """Digests that belong to the step that is running."""

    lanes: list[Tensor]
    names: tuple[str, ...]
    settings: dict[str, str]


class ReplicaProbe:
    """Reader of the weights of one watch.

    Args:
        model: The watched model.
        optimizers: The watched optimizer and the wrappers around it.
        chosen: Argument ``replicas`` of ``watch()``, checked; not None.
        thread: Thread that compares.
        open_channel: Opens the comparison of a cohort.
        selection: Parameters to compare.
        every: Interval between two readings, in samples.
        with_norms: Whether weights are read on every sample anyway.
        forward: Hooks of the model; None without any.
        error_boundary: Contains errors; the weights of the step are then absent.
    """

    def __init__(  # noqa: PLR0913 - every argument is a collaborator
        self,
        model: nn.Module,
        optimizers: "tuple[Any, ...]",
        *,
        chosen: "Literal['auto'] | ProcessGroup",
        thread: "ReplicaThread",
        open_channel: "Callable[[Cohort], Channel]",
        selection: "Selection",
        every: int,
        with_norms: bool,
        forward: "ForwardProbe | None",
        error_boundary: "ErrorBoundary",
    ) -> None:
        self._chosen, self._thread, self._open_channel = chosen, thread, open_channel
        self._off = chosen == AUTO and trains_locally(optimizers)
        self._selection = selection
        self._every, self._with_norms = every, with_norms
        self._forward = forward
        self._error_boundary = error_boundary
        self._passes = 0
        self._model = weakref.ref(model)
        # Parameters and wrapper of the last reading, by their ids, and the comparisons that follow from them.
        self._known: tuple[list[int], int | None] | None = None
        self._channels: tuple[Channel, ...] = ()
        self._by_cohort: dict[Cohort, Channel] = {}
        self._wrappers: tuple[weakref.ref[nn.Module], ...] = ()
        self._joins: tuple[object, ...] = ()
        self._generation, self._first = 0, 0
        self._read: _Read | None = None

    def read(self, model: nn.Module, optimizer: "HasParameters", sample: int) -> None:
        """Start to compute the digests of the weights, if they are due at a sample, counted from 0."""
        self._read = None
        due = self._with_norms or sample % self._every == 0
        if self._off or not due or not several_ranks() or recording():
            return
        with self._error_boundary.guard("replicas"), torch.no_grad():
            self._read = self._digests(model, optimizer)

    def take(self, step: int, program: "ProgramFacts | None") -> tuple[ReplicaRow | None, list[Tensor]]:
        """Return what the step that just ended reports, and the digests that must be copied for it.

        Args:
            step: Number of earlier calls of ``step()``.
            program: Facts for contracts, which a digest of the batch comes with.
        """
        if self._joins:
            self._follow_join(step)
        read, self._read = self._read, None
        if not self._channels or (read is None and program is None):
            return None, []
        common: dict[str, Any] = {"thread": self._thread, "channels": self._channels, "key": self._key(step)}
        if read is None:
            return ReplicaRow(**common), []
        forward = self._forward
        known = None if forward is None or forward.calls is None else forward
        row = ReplicaRow(
            **common,
            names=read.names,
            settings=read.settings,
            forwards=None if known is None else known.passes,
            wrapped=None if known is None else self._wrapped(known),
            received=known is not None and known.received,
        )
        return row, read.lanes

    def _digests(self, model: nn.Module, optimizer: "HasParameters") -> _Read | None:
        named = self._selection.names(model, optimizer)
        by_device: dict[torch.device, list[tuple[str, Tensor, Tensor]]] = {}
        for name, parameter in named:
            part = local_part(parameter)
            if type(part) in _PLAIN and part.layout is torch.strided and part.device.type != "meta":
                by_device.setdefault(part.device, []).append((name, parameter, part))
        found = [each for of_device in by_device.values() for each in of_device]
        self._channels = self._cohorts(model, [parameter for _, parameter, _ in found])
        if not self._channels:
            return None
        lanes = [digests([part for _, _, part in of_device]) for of_device in by_device.values()]
        names = tuple(f"{name}\t{part.dtype}\t{tuple(part.shape)}" for name, _, part in found)
        return _Read(lanes, names, _settings(optimizer))

    def _cohorts(self, model: nn.Module, parameters: list[Tensor]) -> "tuple[Channel, ...]":
        """Return the comparison of each cohort, worked out again if parameters or the wrapper have changed."""
        running = None if self._forward is None else self._forward.wrapper
        key = [*map(id, parameters)], None if running is None else id(running)
        if self._known == key:
            return self._channels
        self._known = key
        around = [] if running is None else [running]
        self._wrappers = tuple(weakref.ref(each) for each in (*around, *wrappers(model)))
        self._joins = tuple(map(_join_of, self._wrappers))
        found = cohorts_of(model, parameters, self._chosen, running)
        for cohort in found:
            if cohort not in self._by_cohort:
                self._by_cohort[cohort] = self._open_channel(cohort)
        return tuple(self._by_cohort[cohort] for cohort in found)

    def _wrapped(self, forward: "ForwardProbe") -> bool:
        """Whether a wrapper ran in the forward passes since the last report."""
        before, self._passes = self._passes, forward.passes
        model = forward.model
        if model is not None and isinstance(uncompiled(model), nn.parallel.DistributedDataParallel):
            return forward.passes > before
        replicated = any(channel.cohort.source is Source.MESH for channel in self._channels)
        return forward.wrapper is not None or replicated

    def _follow_join(self, step: int) -> None:
        """Count steps anew where ``Join`` begins or ends, since ranks make different numbers of steps within it."""
        joins = tuple(map(_join_of, self._wrappers))
        if any(one is not other for one, other in zip(joins, self._joins, strict=True)):
            self._joins, self._first = joins, step
            self._generation += 1

    def _key(self, step: int) -> int:
        return self._generation * _GENERATION + step - self._first


def _join_of(wrapper: "weakref.ref[nn.Module]") -> object:
    module = wrapper()
    return None if module is None else join_state(module)


def _settings(optimizer: "HasParameters") -> dict[str, str]:
    """Return the settings of each parameter group other than the learning rate, as text."""
    kinds = (int, float, str, tuple, type(None))
    return {
        f"{number}.{name}": str(value)
        for number, group in enumerate(optimizer.param_groups[:_MOST_GROUPS])
        for name, value in group.items()
        if name not in {"params", "lr"} and isinstance(value, kinds)
    }
