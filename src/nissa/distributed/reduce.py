"""Statistics of sharded gradients: packed rows of each rank's part become those of the whole, on every rank.

Per process group there are two collectives, whatever the number of parameters, and their shapes depend on nothing but
how the model is sharded: a rank without a gradient, and one that failed to measure it, take part with rows that change
nothing. In float64, and therefore in the same buffer as sums, counts are exact below ``2**53``.
"""

from typing import TYPE_CHECKING, Final

import torch

from nissa.kernels.moments import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.distributed import ProcessGroup

    from nissa.kernels.moments import Layout

__all__ = ["ABSENT", "FAILED", "identity_rows", "merge_ranks"]

ABSENT: Final = -1
"""In place of a count: no rank had a gradient."""

FAILED: Final = -2
"""In place of a count: a rank could not measure its part."""

# Columns are those of the layout, but for the extremes, which are not added up; in their place travels how many ranks
# had a gradient, and how many failed.
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
    """Merge the statistics of this rank's parts with those of the other ranks; nothing waits for a device.

    For each group in order of first appearance there is one ``all_reduce`` of sums and one of extremes, over the rows
    that are sharded over it. All its ranks must call this with the same rows in the same order.

    Args:
        rows: int64 ``(P, layout.width)``, as `nissa.kernels.moments` lays them out.
        layout: Their columns.
        groups: The groups of each row, see `nissa.distributed.sharding.Local`.
        present: Whether this rank has a gradient, for each row; where not, the content of its row is ignored.
        failed: This rank could not measure its parts; the content of all its rows is ignored.
        sums: float64 ``(P, E)``: further numbers to be added up, whether or not there is a gradient.

    Returns:
        Rows and sums of the whole tensors, the same on all ranks of a group; in place of its count, a row has `ABSENT`
        or `FAILED`. They are on a device that the groups can reach. Without any group, rows and sums as they came.
    """
    distinct = dict.fromkeys(group for of_row in groups for group in of_row)
    if not distinct:
        return rows, sums
    device = _reachable(rows.device, next(iter(distinct)))
    rows, sums = _put(rows, device), None if sums is None else _put(sums, device)
    here = _put(torch.tensor([[each and not failed] for each in present], dtype=torch.bool, device="cpu"), device)
    added, largest = _added(rows, here, sums, failed=failed), _largest(rows, here)
    for group in distinct:
        members = [row for row, of_row in enumerate(groups) if group in of_row]
        chosen = None if len(members) == len(rows) else _put(torch.tensor(members, device="cpu"), device)
        _all_reduce(added, torch.distributed.ReduceOp.SUM, group, chosen)
        _all_reduce(largest, torch.distributed.ReduceOp.MAX, group, chosen)
    return _rows(added[:, : layout.width], largest), None if sums is None else added[:, layout.width :].clone()


def identity_rows(number: int, layout: "Layout", device: "torch.device | str") -> "Tensor":
    """Return packed rows of no element, which change nothing where they are merged: int64 ``(number, layout.width)``."""
    empty = torch.zeros((number, layout.width), dtype=torch.float64, device=device)
    empty[:, _EXTREMES] = torch.nan
    return empty.view(torch.int64)


def _added(rows: "Tensor", here: "Tensor", sums: "Tensor | None", *, failed: bool) -> "Tensor":
    """Return what is added up over ranks: float64 ``(P, layout.width + E)``."""
    added = rows.to(torch.float64)
    added[:, _SUMS] = rows.view(torch.float64)[:, _SUMS]
    added[:, _EXTREMES] = 0.0
    added[:, _HAD] = 1.0
    # Not a product: what is masked may be NaN.
    added = torch.where(here, added, 0.0)
    added[:, _FAILURES] = float(failed)
    if sums is None:
        return added
    return torch.cat((added, torch.zeros_like(sums) if failed else sums), dim=1)


def _largest(rows: "Tensor", here: "Tensor") -> "Tensor":
    """Return what only the largest is kept of: -minimum, maximum and abs_max, -infinity for none; float64 ``(P, 3)``."""
    extremes = rows.view(torch.float64)[:, _EXTREMES]
    largest = torch.cat((-extremes[:, :1], extremes[:, 1:]), dim=1)
    return torch.where(here & ~largest.isnan(), largest, -torch.inf)


def _rows(added: "Tensor", largest: "Tensor") -> "Tensor":
    """Return packed rows again."""
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
    """Reduce the chosen rows in place, all where none are named."""
    if chosen is None:
        torch.distributed.all_reduce(table, operation, group)
        return
    part = table.index_select(0, chosen)
    torch.distributed.all_reduce(part, operation, group)
    table.index_copy_(0, chosen, part)


def _reachable(device: "torch.device", group: "ProcessGroup") -> "torch.device":
    """Return a device that a group communicates from: gradients offloaded to the host may have to go to the GPU again."""
    types = [each.type for each in group._device_types]  # noqa: SLF001 - torch tells it nowhere else
    return device if device.type in types else torch.device(types[0])


def _put(tensor: "Tensor", device: "torch.device") -> "Tensor":
    """Return a tensor on a device, from the host without waiting for it."""
    if tensor.device.type == device.type:
        return tensor
    return (tensor.pin_memory() if tensor.device.type == "cpu" else tensor).to(device, non_blocking=True)
