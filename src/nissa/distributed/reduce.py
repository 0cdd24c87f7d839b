"""Reduction of the statistics of sharded gradients: packed rows per shard become rows of the whole tensors.

Each process group needs two collectives, independent of the number of parameters. Their shapes depend only on the
sharding of the model. A rank without a gradient, or with a failed measurement, therefore contributes identity rows,
which do not change the result. Counts are reduced as float64 in the same buffer as sums, exactly below ``2**53``.
"""

from typing import TYPE_CHECKING, Final

import torch

from nissa.kernels.moments import Column
from nissa.torch_compat import device_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.distributed import ProcessGroup

    from nissa.kernels.moments import Layout

__all__ = ["ABSENT", "FAILED", "identity_rows", "merge_ranks"]

ABSENT: Final = -1
"""Replaces a count: no rank had a gradient."""

FAILED: Final = -2
"""Replaces a count: a rank failed to measure its part."""

# The buffer of sums has the columns of the layout. Extremes cannot be summed, so their columns carry two other counts:
# the number of ranks that had a gradient, and the number of ranks that failed.
_HAD, _FAILURES = Column.MINIMUM, Column.MAXIMUM
_SUMS: Final = slice(Column.TOTAL, Column.MINIMUM)
_EXTREMES: Final = slice(Column.MINIMUM, Column.BUCKETS)


def merge_ranks(
    rows: "Tensor",
    layout: "Layout",
    groups: "Sequence[tuple[ProcessGroup, ...]]",
    *,
    present: "Sequence[bool]",
    failed: bool,
    sums: "Tensor | None" = None,
) -> "tuple[Tensor, Tensor | None]":
    """Merge the statistics of this rank's parts with those of the other ranks, without waiting for a device.

    For each group, in order of first appearance, this runs one ``all_reduce`` of sums and one of extremes over the rows
    that are sharded over the group. All ranks of the group must pass the same rows in the same order.

    Args:
        rows: Packed statistics, int64 ``(P, layout.width)``, in the layout of `nissa.kernels.moments`.
        layout: Columns of the rows.
        groups: Process groups per row, see `nissa.distributed.sharding.Local`.
        present: Whether this rank has a gradient, per row. Rows without a gradient are ignored.
        failed: Whether this rank failed to measure its parts. If so, all of its rows are ignored.
        sums: Additional numbers to sum over ranks, float64 ``(P, E)``; used with or without a gradient.

    Returns:
        Rows and sums of the whole tensors, the same on all ranks of a group, on a device that the groups support. The
        count of a row is `ABSENT` or `FAILED` where no statistics exist. Without any group, the inputs are returned
        unchanged.
    """
    distinct = dict.fromkeys(group for of_row in groups for group in of_row)
    if not distinct:
        return rows, sums
    device = _reachable(rows.device, next(iter(distinct)))
    rows, sums = _put(rows, device), None if sums is None else _put(sums, device)
    measured = _put(torch.tensor([[each and not failed] for each in present], dtype=torch.bool, device="cpu"), device)
    added, largest = _added(rows, measured, sums, failed=failed), _largest(rows, measured)
    for group in distinct:
        members = [row for row, of_row in enumerate(groups) if group in of_row]
        chosen = None if len(members) == len(rows) else _put(torch.tensor(members, device="cpu"), device)
        _all_reduce(added, torch.distributed.ReduceOp.SUM, group, chosen)
        _all_reduce(largest, torch.distributed.ReduceOp.MAX, group, chosen)
    return _rows(added[:, : layout.width], largest), None if sums is None else added[:, layout.width :].clone()


def identity_rows(number: int, layout: "Layout", device: "torch.device | str") -> "Tensor":
    """Return packed rows of zero elements, the identity of `merge_ranks`: int64 ``(number, layout.width)``."""
    empty = torch.zeros((number, layout.width), dtype=torch.float64, device=device)
    empty[:, _EXTREMES] = torch.nan
    return empty.view(torch.int64)


def _added(rows: "Tensor", measured: "Tensor", sums: "Tensor | None", *, failed: bool) -> "Tensor":
    """Return the columns to sum over ranks: float64 ``(P, layout.width + E)``."""
    added = rows.to(torch.float64)
    added[:, _SUMS] = rows.view(torch.float64)[:, _SUMS]
    added[:, _EXTREMES] = 0.0
    added[:, _HAD] = 1.0
    # Mask with `where`, because masked values may be NaN and NaN times 0 is NaN.
    added = torch.where(measured, added, 0.0)
    added[:, _FAILURES] = float(failed)
    if sums is None:
        return added
    return torch.cat((added, torch.zeros_like(sums) if failed else sums), dim=1)


def _largest(rows: "Tensor", measured: "Tensor") -> "Tensor":
    """Return the columns to reduce by maximum: -minimum, maximum, abs_max; -inf if absent; float64 ``(P, 3)``."""
    extremes = rows.view(torch.float64)[:, _EXTREMES]
    largest = torch.cat((-extremes[:, :1], extremes[:, 1:]), dim=1)
    return torch.where(measured & ~largest.isnan(), largest, -torch.inf)


def _rows(added: "Tensor", largest: "Tensor") -> "Tensor":
    """Return packed rows from the reduced columns."""
    had, failures = added[:, _HAD], added[:, _FAILURES]
    rows = added.to(torch.int64)
    rows[:, Column.COUNT] = torch.where(had > 0, rows[:, Column.COUNT], ABSENT).masked_fill(failures > 0, FAILED)
    extremes = torch.where(largest == -torch.inf, torch.nan, largest)
    floats = rows.view(torch.float64)
    floats[:, _SUMS] = added[:, _SUMS]
    floats[:, _EXTREMES] = torch.cat((-extremes[:, :1], extremes[:, 1:]), dim=1)
    return rows


def _all_reduce(
    table: "Tensor", operation: "torch.distributed.ReduceOp.RedOpType", group: "ProcessGroup", chosen: "Tensor | None"
) -> None:
    """Reduce the chosen rows in place, or all rows if ``chosen`` is None."""
    if chosen is None:
        torch.distributed.all_reduce(table, operation, group)
        return
    part = table.index_select(0, chosen)
    torch.distributed.all_reduce(part, operation, group)
    table.index_copy_(0, chosen, part)


def _reachable(device: "torch.device", group: "ProcessGroup") -> "torch.device":
    """Return a device that a group supports. Gradients offloaded to the host may have to return to the GPU for NCCL."""
    types = device_types(group)
    return device if device.type in types else torch.device(types[0])


def _put(tensor: "Tensor", device: "torch.device") -> "Tensor":
    """Return a tensor on a device; a copy from the host is asynchronous."""
    if tensor.device.type == device.type:
        return tensor
    return (tensor.pin_memory() if tensor.device.type == "cpu" else tensor).to(device, non_blocking=True)
