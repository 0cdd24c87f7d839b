"""Groups of ranks whose weights must be equal: those of wrappers, of replicated mesh dimensions, or of an argument.

The gradients of a wrapper are averaged over its group, so that equal weights stay equal. A DTensor has equal parts on all ranks of
a mesh dimension over which it is replicated.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import torch

from nissa.distributed.dtensors import is_distributed
from nissa.torch_compat import replicate_group, uncompiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["AUTO", "Cohort", "Replicas", "Source", "cohorts_of", "group_of", "several_ranks", "wrappers"]

AUTO: Final = "auto"
Replicas: TypeAlias = "Literal['auto'] | ProcessGroup | DeviceMesh | None"
"""Argument ``replicas`` of ``watch()``: ``"auto"``, None, a process group, or a device mesh of one dimension."""

_LOCAL_OPTIMIZERS: Final = frozenset({"PostLocalSGDOptimizer"})
"""Optimizers of torch that let replicas differ between averages."""


class Source(StrEnum):
    """Reason why ranks must have equal weights."""

    ARGUMENT = "argument"
    WRAPPER = "wrapper"
    MESH = "mesh"
    PRESUMED = "presumed"
    """Nothing states it; weights that are equal at the first comparison and belong to no wrapper are presumed to be replicas."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Parameters that must be equal on some ranks.

    Args:
        ranks: Their global ranks, ascending.
        rows: Index of each parameter in the list of `cohorts_of`.
        data: Whether each of these ranks should read data of its own.
    """

    ranks: tuple[int, ...]
    source: Source
    rows: tuple[int, ...]
    data: bool


def several_ranks() -> bool:
    """Whether there is a process group with several ranks."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    return bool(distributed.get_world_size() > 1)


def group_of(replicas: Any) -> "Literal['auto'] | ProcessGroup | None":
    """Return a checked argument ``replicas``: a process group, ``"auto"`` or None.

    Raises:
        TypeError: It is something else.
        ValueError: The mesh has several dimensions, or this rank is not in the group.
    """
    if replicas is None or replicas == AUTO:
        return AUTO if replicas == AUTO else None
    if hasattr(replicas, "get_group") and hasattr(replicas, "ndim"):
        if replicas.ndim != 1:
            raise ValueError(f"has {replicas.ndim} dimensions; pass one of them, such as mesh['replicate']")
        replicas = replicas.get_group()
    kind = getattr(torch.distributed, "ProcessGroup", None)
    if kind is None or not isinstance(replicas, kind):
        raise TypeError(
            f"is a {type(replicas).__name__}; pass a process group, a device mesh of one dimension, None, or leave it out"
        )
    found: ProcessGroup = replicas
    return found


def cohorts_of(
    model: "nn.Module",
    parameters: "Sequence[Tensor]",
    chosen: "Literal['auto'] | ProcessGroup | None",
    running: "nn.Module | None" = None,
) -> list[Cohort]:
    """Return the groups of ranks that hold parameters as replicas.

    Args:
        model: The watched model.
        parameters: Its parameters.
        chosen: Argument ``replicas``.
        running: Wrapper that was seen around the model in its forward pass.
    """
    if chosen is None or not several_ranks():
        return []
    if chosen != AUTO:
        return _joined([(chosen, Source.ARGUMENT, row, True) for row in range(len(parameters))])
    shared: list[tuple[ProcessGroup, Source, int, bool]] = []
    groups = _wrapped(model, running)
    data = _data_parallel(model, parameters)
    plain = []
    for row, parameter in enumerate(parameters):
        if is_distributed(parameter):
            shared += [(group, Source.MESH, row, data) for group in _replicated_dimensions(parameter)]
        elif id(parameter) in groups:
            shared.append((groups[id(parameter)], Source.WRAPPER, row, True))
        elif getattr(parameter, "allreduce", True):  # False marks an expert of a rank's own, as in DeepSpeed and Tutel
            plain.append(row)
    if not shared and len(plain) == len(parameters) and not _has_sharded(model):
        world = torch.distributed.group.WORLD
        shared = [] if world is None else [(world, Source.PRESUMED, row, True) for row in plain]
    return _joined(shared)


def trains_locally(optimizers: "Sequence[object]") -> bool:
    """Whether an optimizer lets replicas differ on purpose, as local SGD does."""
    return any(base.__name__ in _LOCAL_OPTIMIZERS for each in optimizers for base in type(each).__mro__)


def wrappers(model: "nn.Module") -> "Iterator[torch.nn.parallel.DistributedDataParallel]":
    """Iterate over the ``DistributedDataParallel`` that a model is or contains."""
    for module in uncompiled(model).modules():
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            yield module


def _wrapped(model: "nn.Module", running: "nn.Module | None") -> "dict[int, ProcessGroup]":
    """Return the group over which each wrapped parameter is replicated, by the parameter's id."""
    found: dict[int, ProcessGroup] = {}
    around = [running] if isinstance(running, torch.nn.parallel.DistributedDataParallel) else []
    for wrapper in [*around, *wrappers(model)]:
        ignored = wrapper.parameters_to_ignore
        named = wrapper.module.named_parameters()
        found |= {id(each): wrapper.process_group for name, each in named if name not in ignored}
    for module in uncompiled(model).modules():
        group = replicate_group(module)
        if group is not None:
            found |= {id(each): group for each in module.parameters() if not is_distributed(each)}
    return found


def _replicated_dimensions(parameter: Any) -> "list[ProcessGroup]":
    mesh = parameter.device_mesh
    if mesh.get_coordinate() is None:
        return []
    dimensions = enumerate(parameter.placements)
    return [mesh.get_group(each) for each, place in dimensions if place.is_replicate() and mesh.size(each) > 1]


def _data_parallel(model: "nn.Module", parameters: "Sequence[Tensor]") -> bool:
    """Whether replicated mesh dimensions are those of HSDP or ``replicate``, where each rank reads data of its own.

    Ranks of tensor parallelism read the same data, and only some of their parameters are replicated.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    sharded = [each for each in parameters if is_distributed(each)]
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is None or not sharded or not any(isinstance(each, kind) for each in model.modules()):
        return False
    return all(each.placements[0].is_replicate() for each in sharded)  # type: ignore[attr-defined]  # a DTensor has them


def _has_sharded(model: "nn.Module") -> bool:
    return any(map(is_distributed, model.parameters()))


def _joined(shared: "Sequence[tuple[ProcessGroup, Source, int, bool]]") -> list[Cohort]:
    """Return one cohort per group of several ranks."""
    rows: dict[tuple[tuple[int, ...], Source, bool], list[int]] = {}
    for group, source, row, data in shared:
        ranks = tuple(sorted(torch.distributed.get_process_group_ranks(group)))
        rows.setdefault((ranks, source, data), []).append(row)
    mine = torch.distributed.get_rank()
    return [
        Cohort(ranks, source, tuple(of_ranks), data)
        for (ranks, source, data), of_ranks in rows.items()
        if len(ranks) > 1 and mine in ranks
    ]
