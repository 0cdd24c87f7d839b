"""Which part of a tensor this rank holds, and which process groups hold the other parts.

A tensor is sharded where it is a DTensor (``fully_shard``, ``parallelize_module``).
"""

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeGuard, cast

import torch

from nissa.distributed.dtensors import distributed_exist, is_distributed

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup, ReduceOp
    from torch.distributed.tensor import DTensor, Partial

__all__ = ["Local", "locals_of", "replicated", "unsupported"]

# gloo has no average.
_OPERATIONS: Final = {"sum": "SUM", "avg": "SUM", "max": "MAX", "min": "MIN", "product": "PRODUCT"}


@dataclass(frozen=True, slots=True)
class Local:
    """A tensor as this rank sees it.

    Args:
        tensor: This rank's part, which may have no elements; None where there is none.
        groups: Process groups whose other ranks hold other parts, one per dimension of the mesh that the tensor is
            sharded over; empty where it is whole here.
        first: Whether this rank is the first of those that hold the tensor; True for a plain one.
    """

    tensor: "Tensor | None"
    groups: "tuple[ProcessGroup, ...]"
    first: bool


def locals_of(pairs: "Sequence[tuple[Tensor, Tensor | None]]") -> list[Local]:
    """Return this rank's part of each gradient; nothing waits for a device.

    Gradients that still are to be reduced, like those of norms under sequence parallelism, are reduced here: in a copy,
    with one ``all_reduce`` for all that share group, operation, dtype and device. The groups of a gradient that is not
    there are those of its parameter, so that all ranks agree on them.

    Args:
        pairs: Parameter and gradient, in the same order on all ranks that share them.
    """
    if not distributed_exist():
        return [Local(gradient if gradient is None else _arrived(gradient), (), first=True) for _, gradient in pairs]
    parts = [_part(parameter, gradient) for parameter, gradient in pairs]
    for pending in dict.fromkeys(pending for part in parts for pending in part.pending):
        _reduce([part for part in parts if pending in part.pending], pending)
    return [Local(None if part.copy else part.tensor, part.groups, part.first) for part in parts]


def replicated(model: "nn.Module") -> "ProcessGroup | None":
    """Return the process group over which ``DistributedDataParallel`` keeps a model alike, None where it doesn't."""
    # What torch.compile() returns holds the model that it was given.
    inner = getattr(model, "_orig_mod", model)
    return inner.process_group if isinstance(inner, torch.nn.parallel.DistributedDataParallel) else None


def unsupported(model: "nn.Module") -> str | None:
    """Return what to do about a model whose gradients cannot be told apart, None where there is no such problem."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        return None
    return (
        "FullyShardedDataParallel keeps gradients in flat shards, in which parameters cannot be told apart; "
        "shard the model with torch.distributed.fsdp.fully_shard() instead."
    )


@dataclass(frozen=True, slots=True)
class _Pending:
    """A reduction that a gradient still needs; gradients that need the same one share it."""

    group: "ProcessGroup"
    operation: str
    # Of the tensor to be reduced, since only equal ones fit into one.
    kind: Hashable


@dataclass(slots=True)
class _Part:
    """A `Local` in the making.

    Args:
        copy: The tensor is whole here, and the same part was given by the first rank of a dimension.
    """

    tensor: "Tensor | None"
    groups: "tuple[ProcessGroup, ...]" = ()
    first: bool = True
    copy: bool = False
    pending: list[_Pending] = field(default_factory=list)


def _part(parameter: "Tensor", gradient: "Tensor | None") -> _Part:
    told = parameter if gradient is None else gradient
    if not _is_sharded(told):
        return _Part(gradient if gradient is None else _arrived(gradient))
    mesh, placements = told.device_mesh, told.placements
    # The optimizer brings a gradient to the placements of its parameter; where they differ, so do we.
    wanted = parameter.placements if _is_sharded(parameter) and parameter.device_mesh == mesh else placements
    coordinate = mesh.get_coordinate()
    if coordinate is None:  # the mesh is of other ranks
        return _Part(None, first=False)
    part = _Part(None if gradient is None else _arrived(told.to_local()), first=not any(coordinate))
    for dimension, (is_, becomes) in enumerate(zip(placements, wanted, strict=True)):
        if mesh.size(dimension) == 1:
            continue
        group = mesh.get_group(dimension)
        whole = is_.is_replicate() or is_.is_partial()
        if not whole or not (becomes.is_replicate() or becomes.is_partial()):
            part.groups += (group,)
            part.copy |= whole and coordinate[dimension] > 0
        if is_.is_partial() and part.tensor is not None:
            kind = part.tensor.dtype, part.tensor.device
            part.pending.append(_Pending(group, cast("Partial", is_).reduce_op, kind))
    return part


def _is_sharded(tensor: "Tensor") -> "TypeGuard[DTensor]":
    return is_distributed(tensor)


def _arrived(tensor: "Tensor") -> "Tensor":
    """Return a tensor whose collective is through as far as the stream is concerned: a kernel reads its memory."""
    wait = getattr(tensor, "trigger_wait", None)
    return tensor if wait is None else wait()


def _reduce(parts: list[_Part], pending: _Pending) -> None:
    tensors = [part.tensor for part in parts if part.tensor is not None]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # a copy, even of one
    operation: ReduceOp.RedOpType = getattr(torch.distributed.ReduceOp, _OPERATIONS[pending.operation])
    torch.distributed.all_reduce(flat, operation, pending.group)
    if pending.operation == "avg":
        flat /= pending.group.size()
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for part, tensor, reduced in zip(parts, tensors, pieces, strict=True):
        part.tensor = reduced.view(tensor.shape)
