"""Capture of one sampled step: gradient statistics per parameter, computed on the device of the gradients."""

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.distributed.dtensors import is_distributed
from nissa.distributed.reduce import FAILED, identity_rows, merge_ranks
from nissa.distributed.sharding import Local, locals_of, replicated
from nissa.gradients.loss_scaling import scale_of
from nissa.gradients.weights import Weights
from nissa.kernels import kernel_for
from nissa.kernels.moments import Layout, Moments, Thresholds, decode
from nissa.kernels.transfer import side_by_side, stacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch.distributed import ProcessGroup

    from nissa.gradients.grouping import Grouping


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Measurements of a sampled step.

    Args:
        layout: Columns of gradient statistics.
        thresholds: Magnitudes beyond which an element counts as vanishing or exploding.
        weights: Also measure the norm of each parameter.
        updates: Also measure the norm of the change of each parameter; needs ``weights``.
        grouping: Assignment of parameters to shared streams; None means one stream per parameter.
        ranks: Selection of the ranks that export: ``auto``, ``first`` or ``all``, see `nissa.config.GradientConfig`.
    """

    layout: Layout
    thresholds: Thresholds
    weights: bool = False
    updates: bool = False
    grouping: "Grouping | None" = None
    ranks: str = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Statistics of a sampled step on the host, a row per parameter.

    Args:
        streams: Stream name of each row, before `StreamLimiter` folds names over the limit.
        exported: Mask of the rows that this rank exports; every row was measured.
        squares: Squared L2 norm of each parameter before the step, and of its change; shape ``(rows, 0..2)``, one
            column per enabled measurement.
        failed: Number of parameters that are absent because a rank could not measure its shard.
        seeds: Row indices of each growing seed, by slot.
    """

    names: tuple[str, ...]
    streams: tuple[str, ...]
    moments: Moments
    exported: "NDArray[np.bool_]"
    squares: "NDArray[np.float64]"
    failed: int
    seeds: "dict[str, NDArray[np.intp]]"


@dataclass(frozen=True, slots=True)
class Sampled:
    """Row metadata (names, streams, slots) of a sample; it stays on the host while the statistics are copied.

    Args:
        names: Parameter name of each row; the rows of all devices are concatenated.
        streams: The stream of each row.
        extra: Number of columns after those of the layout (squared norms of weights and updates).
        slots: Slot of the seed that owns each row; None for the host network.
        idle: Names of parameters that require a gradient and had none in this step.
    """

    names: tuple[str, ...]
    streams: tuple[str, ...]
    layout: Layout
    extra: int
    exported: tuple[bool, ...]
    slots: tuple[str | None, ...]
    idle: tuple[str, ...] = ()

    def unpack(self, arrays: "Sequence[NDArray[np.generic]]") -> Statistics:
        """Return the statistics, decoded from the host copy of each device's rows."""
        width = self.layout.width + self.extra
        rows = [np.asarray(array, dtype=np.int64).reshape(-1, width) for array in arrays]
        packed = rows[0] if len(rows) == 1 else np.concatenate([np.zeros((0, width), dtype=np.int64), *rows])
        counts = packed[:, 0]
        measured = np.flatnonzero(counts >= 0)
        if len(measured) < len(packed):
            packed = packed[measured]
        slots = np.array([self.slots[row] or "" for row in measured], dtype=object)
        return Statistics(
            names=tuple(self.names[row] for row in measured),
            streams=tuple(self.streams[row] for row in measured),
            moments=decode(packed[:, : self.layout.width], self.layout),
            exported=np.array(self.exported, dtype=np.bool_)[measured],
            squares=np.ascontiguousarray(packed[:, self.layout.width :]).view(np.float64),
            failed=int((counts == FAILED).sum()),
            seeds={slot: np.flatnonzero(slots == slot) for slot in dict.fromkeys(self.slots) if slot is not None},
        )


def joined(
    samples: "Sequence[tuple[list[torch.Tensor], Sampled]]", expected: "Sequence[str]" = ()
) -> tuple[list[torch.Tensor], Sampled]:
    """Return samples of different parameters in one step as a single one, with one tensor per device.

    Args:
        samples: Return values of `Capture.finish`; at least one.
        expected: Names of the parameters that require a gradient; those that no sample has become idle.
    """
    if len(samples) == 1 and not expected:
        return samples[0]
    by_device: dict[torch.device, list[tuple[torch.Tensor, Sampled, slice]]] = {}
    for tensors, sampled in samples:
        start = 0
        for tensor in tensors:
            rows = slice(start, start + len(tensor))
            by_device.setdefault(tensor.device, []).append((tensor, sampled, rows))
            start = rows.stop
    order = [(sampled, rows) for parts in by_device.values() for _, sampled, rows in parts]
    names = tuple(name for sampled, rows in order for name in sampled.names[rows])
    have = set(names)
    whole = replace(
        samples[0][1],
        names=names,
        streams=tuple(stream for sampled, rows in order for stream in sampled.streams[rows]),
        exported=tuple(each for sampled, rows in order for each in sampled.exported[rows]),
        slots=tuple(slot for sampled, rows in order for slot in sampled.slots[rows]),
        idle=tuple(name for name in expected if name not in have),
    )
    return [stacked([tensor for tensor, _, _ in parts]) for parts in by_device.values()], whole


@dataclass(slots=True)
class _DeviceRows:
    """Parameters and rows of one device in a step; the lists have one entry per parameter."""

    names: list[str] = field(default_factory=list)
    parameters: list[torch.Tensor] = field(default_factory=list)
    locals: list[Local] = field(default_factory=list)
    rows: torch.Tensor | None = None

    @property
    def shared(self) -> bool:
        """Whether other ranks hold other shards, so that they wait for this rank in a collective."""
        return any(local.groups for local in self.locals)


class Capture:
    """Measurement of one sampled step, from before the update to after it.

    Args:
        measures: Measurements to make.
        candidates: Name and tensor of every parameter that the step may use, without duplicates.
        optimizer: Source of the loss scale that gradients are still multiplied by.
        model: Used to detect data parallelism, where all ranks have the same gradients.
        idle: Names of parameters that require a gradient and have none.
        scale: Loss scale, if the optimizer does not hold it.

    Attributes:
        fault: Error that prevented this rank from measuring its shard. The rank still joins the merge, because the
            other ranks wait for it in a collective. The affected rows are then absent on all ranks.
    """

    def __init__(
        self,
        measures: Measures,
        candidates: "Sequence[tuple[str, torch.Tensor]]",
        optimizer: torch.optim.Optimizer | None = None,
        model: torch.nn.Module | None = None,
        *,
        idle: "Iterable[str]" = (),
        scale: torch.Tensor | None = None,
    ) -> None:
        self._scale = scale
        self._measures = measures
        self._candidates = candidates
        self._optimizer = optimizer
        self._model = model
        self._replicas = None if model is None else replicated(model)
        self._device_rows: dict[torch.device, _DeviceRows] = {}
        self._idle = tuple(idle)
        self.fault: Exception | None = None
        self._weights = self._before() if measures.weights else None

    def _before(self) -> Weights | None:
        try:
            return Weights([parameter for _, parameter in self._candidates], updates=self._measures.updates)
        except Exception as error:
            if not any(is_distributed(parameter) for _, parameter in self._candidates):
                raise
            self.fault = error
            return None

    def read(self) -> None:
        """Measure the gradients, which must exist now, without waiting for a device."""
        parameters = [parameter for _, parameter in self._candidates]
        found = locals_of([(parameter, parameter.grad) for parameter in parameters])
        for (name, parameter), local in zip(self._candidates, found, strict=True):
            if local.tensor is None and not local.groups:
                continue  # frozen or unused; a shard that is absent here may exist on another rank
            device_rows = self._device_rows.setdefault(parameter.device, _DeviceRows())
            device_rows.names.append(name)
            device_rows.parameters.append(parameter)
            device_rows.locals.append(local)
        for device, device_rows in self._device_rows.items():
            self._measure(device, device_rows)

    @property
    def found_any(self) -> bool:
        """Whether any parameter had a gradient in `read`."""
        return bool(self._device_rows)

    def _measure(self, device: torch.device, device_rows: _DeviceRows) -> None:
        try:
            gradients = [
                torch.empty(0, device=device) if each.tensor is None else each.tensor for each in device_rows.locals
            ]
            scale = (
                scale_of(self._optimizer, device) if self._scale is None else self._scale.to(device, non_blocking=True)
            )
            device_rows.rows = kernel_for(device.type)(
                gradients, self._measures.layout, self._measures.thresholds, scale
            )
        except Exception as error:
            if not device_rows.shared:
                raise
            device_rows.rows = identity_rows(len(device_rows.locals), self._measures.layout, device)
            self.fault = error

    def finish(self, seeds: "Sequence[tuple[str, frozenset[int]]]" = ()) -> tuple[list[torch.Tensor], Sampled]:
        """Return the statistics, merged over ranks, as one int64 tensor per device, and their row metadata.

        Args:
            seeds: Slot and parameter ids of each growing seed.
        """
        all_rows = list(self._device_rows.values())
        tensors = [self._merged(device_rows) for device_rows in all_rows]
        owner = {key: slot for slot, keys in seeds for key in keys}
        extra = 1 + self._measures.updates if self._measures.weights else 0
        names = tuple(name for device_rows in all_rows for name in device_rows.names)
        grouping = self._measures.grouping
        sampled = Sampled(
            names=names,
            streams=names if grouping is None or self._model is None else grouping.streams(self._model, names),
            layout=self._measures.layout,
            extra=extra,
            exported=tuple(self._exports(local) for device_rows in all_rows for local in device_rows.locals),
            slots=tuple(owner.get(id(parameter)) for device_rows in all_rows for parameter in device_rows.parameters),
            idle=self._idle,
        )
        return tensors, sampled

    def _merged(self, device_rows: _DeviceRows) -> torch.Tensor:
        assert device_rows.rows is not None  # noqa: S101 - read() has filled it
        squares = self._squares(device_rows) if self._measures.weights else None
        rows, squares = merge_ranks(
            device_rows.rows,
            self._measures.layout,
            [local.groups for local in device_rows.locals],
            present=[local.tensor is not None for local in device_rows.locals],
            failed=self.fault is not None,
            sums=squares,
        )
        return rows if squares is None else side_by_side(rows, squares.view(torch.int64))

    def _squares(self, device_rows: _DeviceRows) -> torch.Tensor:
        try:
            if self._weights is not None:
                return self._weights.squares(device_rows.parameters)
        except Exception as error:
            if not device_rows.shared:
                raise
            self.fault = error
        assert device_rows.rows is not None  # noqa: S101 - read() has filled it
        shape = len(device_rows.parameters), 1 + self._measures.updates
        return torch.full(shape, torch.nan, dtype=torch.float64, device=device_rows.rows.device)

    def _exports(self, local: Local) -> bool:
        if self._measures.ranks == "auto":
            return local.first and (self._replicas is None or _is_first(self._replicas))
        return self._measures.ranks == "all" or _global_rank() == 0


def _is_first(group: "ProcessGroup") -> bool:
    """Whether this rank is the first of a group, or of all if the group was destroyed."""
    return torch.distributed.get_rank(group) == 0 if torch.distributed.is_initialized() else _global_rank() == 0


def _global_rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdigit() else 0
