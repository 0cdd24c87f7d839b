"""Local part of a sharded tensor, and the process groups that hold the other parts.

Sharded tensors are DTensors (``fully_shard``, ``parallelize_module``).
"""

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard, cast

import torch

from nissa.distributed.dtensors import distributed_exist, is_distributed
from nissa.torch_compat import uncompiled

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup, ReduceOp
    from torch.distributed.tensor import DTensor, Partial

__all__ = ["Local", "local_part", "locals_of", "replicated", "unsupported"]

_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter, type(None)})
# Averages are computed as a sum and a division, because gloo has no average.
_OPERATIONS: Final = {"sum": "SUM", "avg": "SUM", "max": "MAX", "min": "MIN", "product": "PRODUCT"}


class Local(NamedTuple):
    """Local part of a tensor on this rank.

    Args:
        tensor: Part of this rank, possibly without elements; None if this rank has no part.
        groups: Process groups whose other ranks hold the other parts, one per mesh dimension over which the tensor is
            sharded; empty if this rank holds the whole tensor.
        first: Whether this rank is the first of those that hold the tensor; True for a plain tensor.
    """

    tensor: "Tensor | None"
    groups: "tuple[ProcessGroup, ...]"
    first: bool


def locals_of(pairs: "Sequence[tuple[Tensor, Tensor | None]]") -> list[Local]:
    """Return this rank's part of each gradient, without waiting for a device.

    Partial gradients, such as those of norm layers under sequence parallelism, are reduced in a copy. All that share
    group, operation, dtype and device use one ``all_reduce``. A missing gradient has the groups of its parameter, so
    that all ranks use the same groups.

    Args:
        pairs: Parameters and gradients, in the same order on all ranks that share them.
    """
    if _PLAIN.issuperset(map(type, chain.from_iterable(pairs))):  # the usual case
        return [Local(gradient, (), first=True) for _, gradient in pairs]
    if not distributed_exist():
        return [Local(gradient if gradient is None else _arrived(gradient), (), first=True) for _, gradient in pairs]
    states = [_local_state(parameter, gradient) for parameter, gradient in pairs]
    for pending in dict.fromkeys(pending for state in states for pending in state.pending):
        _reduce([state for state in states if pending in state.pending], pending)
    return [Local(None if state.copy else state.tensor, state.groups, state.first) for state in states]


def local_part(tensor: "Tensor") -> "Tensor":
    """Return the elements that this rank holds, after asynchronous collectives."""
    return _arrived(tensor.to_local() if _is_sharded(tensor) else tensor)


def replicated(model: "nn.Module") -> "ProcessGroup | None":
    """Return the process group over which ``DistributedDataParallel`` replicates a model, None without it."""
    inner = uncompiled(model)
    return inner.process_group if isinstance(inner, torch.nn.parallel.DistributedDataParallel) else None


def unsupported(model: "nn.Module") -> str | None:
    """Return an error message with a remedy if a model's gradients cannot be separated by parameter, else None."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        return None
    return (
        "FullyShardedDataParallel keeps gradients in flat shards, in which parameters cannot be distinguished; "
        "shard the model with torch.distributed.fsdp.fully_shard() instead."
    )


@dataclass(frozen=True, slots=True)
class _Pending:
    """Reduction that a partial gradient still needs; gradients with equal reductions share one ``all_reduce``."""

    group: "ProcessGroup"
    operation: str
    # dtype and device, because only tensors that agree in both can be concatenated.
    kind: Hashable


@dataclass(slots=True)
class _LocalState:
    """Intermediate state of a `Local`.

    Args:
        copy: Whether another rank, the first of a mesh dimension, contributes the same part.
    """

    tensor: "Tensor | None"
    groups: "tuple[ProcessGroup, ...]" = ()
    first: bool = True
    copy: bool = False
    pending: list[_Pending] = field(default_factory=list)


def _local_state(parameter: "Tensor", gradient: "Tensor | None") -> _LocalState:
    source = parameter if gradient is None else gradient
    if not _is_sharded(source):
        return _LocalState(gradient if gradient is None else _arrived(gradient))
    mesh, placements = source.device_mesh, source.placements
    # The optimizer redistributes a gradient to the placements of its parameter, so the statistics use them as well.
    wanted = parameter.placements if _is_sharded(parameter) and parameter.device_mesh == mesh else placements
    coordinate = mesh.get_coordinate()
    if coordinate is None:  # this rank is not part of the mesh
        return _LocalState(None, first=False)
    state = _LocalState(None if gradient is None else _arrived(source.to_local()), first=not any(coordinate))
    for dimension, (is_, becomes) in enumerate(zip(placements, wanted, strict=True)):
        if mesh.size(dimension) == 1:
            continue
        group = mesh.get_group(dimension)
        whole = is_.is_replicate() or is_.is_partial()
        if not whole or not (becomes.is_replicate() or becomes.is_partial()):
            state.groups += (group,)
            state.copy |= whole and coordinate[dimension] > 0
        if is_.is_partial() and state.tensor is not None:
            kind = state.tensor.dtype, state.tensor.device
            state.pending.append(_Pending(group, cast("Partial", is_).reduce_op, kind))
    return state


def _is_sharded(tensor: "Tensor") -> "TypeGuard[DTensor]":
    return is_distributed(tensor)


def _arrived(tensor: "Tensor") -> "Tensor":
    """Return a tensor after its asynchronous collective on the current stream, because a kernel reads its memory."""
    wait = getattr(tensor, "trigger_wait", None)
    return tensor if wait is None else wait()


def _reduce(states: list[_LocalState], pending: _Pending) -> None:
    tensors = [state.tensor for state in states if state.tensor is not None]
    flat = torch.cat(
        [tensor.reshape(-1) for tensor in tensors]
    )  # always a copy, so that the reduction does not modify the gradient
    operation: ReduceOp.RedOpType = getattr(torch.distributed.ReduceOp, _OPERATIONS[pending.operation])
    torch.distributed.all_reduce(flat, operation, pending.group)
    if pending.operation == "avg":
        flat /= pending.group.size()
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for state, tensor, reduced in zip(states, tensors, pieces, strict=True):
        state.tensor = reduced.view(tensor.shape)
