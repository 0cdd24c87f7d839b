"""Grouping of parameters into streams by network structure, and selection of the largest streams of a step."""

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch

from nissa.gradients.selection import clean_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from nissa.kernels.moments import Moments

GroupBy = Literal["parameter", "module", "block"]

_CONTAINERS: Final = (torch.nn.ModuleList, torch.nn.Sequential, torch.nn.ModuleDict)

_NETWORKS: Final = 64
"""Number of networks whose streams are cached."""


class Grouping:
    """Assignment of parameters to streams; `nissa.gradients.folding` limits their number afterwards.

    Args:
        group_by: Value of ``gradients.group_by``.
    """

    def __init__(self, group_by: GroupBy) -> None:
        self._group_by = group_by
        self._module_streams = lru_cache(maxsize=_NETWORKS)(module_streams)
        self._block_streams = lru_cache(maxsize=_NETWORKS)(block_streams)

    def streams(self, model: torch.nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the stream of each name; grouped parameters have the same stream.

        Args:
            model: The current network; only read if ``group_by`` is ``block``.
            names: Names as returned by `nissa.gradients.selection.Selection.names`.
        """
        if self._group_by == "parameter":
            return names
        if self._group_by == "module":
            return self._module_streams(names)
        return self._block_streams(names, containers(model))


def containers(model: torch.nn.Module) -> frozenset[str]:
    """Return the paths of all ModuleList, ModuleDict and Sequential containers; ``""`` is the network itself."""
    # Clean paths like parameter names, so that both match under torch.compile, DDP and checkpointing.
    return frozenset(_clean_path(path) for path, module in model.named_modules() if isinstance(module, _CONTAINERS))


def _clean_path(path: str) -> str:
    # Append a suffix first: a path may consist of wrapper names only, and clean_name() never returns an empty name.
    return clean_name(f"{path}.*").rpartition(".")[0]


def module_streams(names: "Iterable[str]") -> tuple[str, ...]:
    """Return ``<module path>.*`` for each parameter; ``*`` if the network itself owns it."""
    return tuple(_everything_in(name.rpartition(".")[0]) for name in names)


def block_streams(names: "Iterable[str]", within: frozenset[str]) -> tuple[str, ...]:
    """Return ``<path>.*`` of the block of each parameter.

    The block is the enclosing element of the outermost container. Without a container it is the enclosing direct child
    of the network. A parameter of the network itself belongs to ``*``.

    Args:
        names: Parameter names.
        within: Paths of containers, as `containers` returns them.
    """
    return tuple(_everything_in(_block(name, within)) for name in names)


def _block(name: str, within: frozenset[str]) -> str:
    parts = name.split(".")
    paths = [".".join(parts[:length]) for length in range(len(parts))]
    outermost = next((length for length, path in enumerate(paths) if path in within), 0)
    return paths[min(outermost + 1, len(paths) - 1)]


def _everything_in(path: str) -> str:
    return f"{path}.*" if path else "*"


def largest(moments: "Moments", k: int) -> "NDArray[np.intp]":
    """Return the indices of the ``k`` rows with the largest L2 norm, in ascending order.

    Rows with NaN or infinite elements rank above all others. Rows without any measured element rank below all others.
    Ties go to the first row.
    """
    nonfinite = moments.nonfinite > 0
    norm = np.where(np.isnan(moments.norm), np.where(nonfinite, np.inf, -np.inf), moments.norm)
    descending = np.lexsort((np.arange(len(norm)), -norm, ~nonfinite))
    return np.sort(descending[:k])
