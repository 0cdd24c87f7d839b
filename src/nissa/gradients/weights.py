"""Norms of parameters, and of their change in a step."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.distributed.sharding import locals_of
from nissa.kernels import kernel_for, reference
from nissa.kernels.memory import is_plain
from nissa.kernels.squares import Copies, squares
from nissa.torch_compat import foreach_norm, foreach_sub_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Weights:
    """Norms of parameters before a step and of their change after it.

    The compiled kernel reads CPU parameters if it is available; torch reads all others.

    Args:
        parameters: All parameters that the step may use.
        updates: Copy the parameters, to measure their change.
    """

    def __init__(self, parameters: "Sequence[Tensor]", *, updates: bool) -> None:
        self._updates = updates
        pairs = _here(parameters)
        compiled = _is_compiled()
        direct = [compiled and is_plain(part) for _, part in pairs]
        self._compiled = _Compiled([pair for pair, so in zip(pairs, direct, strict=True) if so], updates=updates)
        rest = [pair for pair, so in zip(pairs, direct, strict=True) if not so]
        shards = [part for _, part in rest]
        self._norms = dict(zip((id(whole) for whole, _ in rest), _norms(shards), strict=True))
        self._copies = {id(whole): part.clone() for whole, part in rest} if updates else {}

    def squares(self, parameters: "Sequence[Tensor]") -> "Tensor":
        """Return the squared norm of each parameter's shard on this rank, and of its change if updates are measured.

        Args:
            parameters: The parameters that the step used, all on one device. Call once, after the step.

        Returns:
            float64 of shape ``(len(parameters), 1)``, or ``(len(parameters), 2)`` with the change.
        """
        rest = [parameter for parameter in parameters if id(parameter) in self._norms]
        if len(rest) == len(parameters):
            return self._by_torch(rest)
        direct = [parameter for parameter in parameters if id(parameter) not in self._norms]
        columns = self._compiled.squares(direct)
        if not rest:
            return columns
        found = columns.new_empty((len(parameters), columns.shape[1]))
        by_torch = torch.tensor([id(parameter) in self._norms for parameter in parameters])
        found[by_torch], found[~by_torch] = self._by_torch(rest), columns
        return found

    def _by_torch(self, parameters: "Sequence[Tensor]") -> "Tensor":
        columns = [torch.stack([self._norms[id(parameter)] for parameter in parameters])]
        if self._updates:
            before = [self._copies.pop(id(parameter)) for parameter in parameters]
            # Subtract in place to save memory: the copies are not needed after this.
            foreach_sub_(before, [part for _, part in _here(parameters)])
            columns.append(torch.stack(_norms(before)))
        return torch.stack(columns, dim=1).square()


class _Compiled:
    """Norms of the parameters that the compiled kernel reads.

    Args:
        pairs: Parameters and their shards on this rank.
        updates: Copy the parameters.
    """

    def __init__(self, pairs: "Sequence[tuple[Tensor, Tensor]]", *, updates: bool) -> None:
        self._rows = {id(whole): row for row, (whole, _) in enumerate(pairs)}
        self._copies: Copies | None = None
        if not pairs:
            return
        parts = [part for _, part in pairs]
        self._copies = Copies(parts) if updates else None
        places = self._copies.addresses() if self._copies else None
        self._squares = squares(parts, places, write=updates)

    def squares(self, parameters: "Sequence[Tensor]") -> "Tensor":
        """See `Weights.squares`; releases the copies."""
        rows = [self._rows[id(parameter)] for parameter in parameters]
        norms = self._squares[rows]
        if self._copies is None:
            return torch.from_numpy(norms[:, np.newaxis])  # without an operation of torch between two steps
        changes = _changes([part for _, part in _here(parameters)], rows, self._copies)
        self._copies = None
        return torch.stack([torch.from_numpy(norms), changes], dim=1)


def _changes(now: "list[Tensor]", rows: "Sequence[int]", copies: "Copies") -> "Tensor":
    """Return the sums of squares of the differences between parameters and their copies."""
    if all(is_plain(part) and copies.is_of(row, part) for part, row in zip(now, rows, strict=True)):
        places = copies.addresses()
        return torch.from_numpy(squares(now, [places[row] for row in rows]))
    before = [copies.tensor(row) for row in rows]  # a step may replace a parameter's memory
    foreach_sub_(before, now)
    return torch.stack(_norms(before)).square()


def _is_compiled() -> bool:
    return kernel_for("cpu") is not reference.measure


def _here(parameters: "Sequence[Tensor]") -> "list[tuple[Tensor, Tensor]]":
    """Return the parameters that have a shard on this rank, with that shard."""
    parts = locals_of([(parameter, parameter) for parameter in parameters])
    return [(whole, part.tensor) for whole, part in zip(parameters, parts, strict=True) if part.tensor is not None]


def _norms(tensors: "Sequence[Tensor]") -> "list[Tensor]":
    """Return L2 norms as float64 scalars; NaN and infinity pass through."""
    reals = [torch.view_as_real(each.resolve_conj()) if each.is_complex() else each for each in tensors]
    return list(foreach_norm(reals, 2, dtype=torch.float64)) if reals else []
