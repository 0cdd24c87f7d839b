"""Which streams parameters share by the structure of their network, and which streams are the largest of a step."""

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
"""Networks whose streams are remembered."""


class Grouping:
    """Names the stream of each parameter of a network; `nissa.gradients.folding` bounds their number afterwards.

    Args:
        group_by: As ``gradients.group_by`` has it.
    """

    def __init__(self, group_by: GroupBy) -> None:
        self._group_by = group_by
        self._module_streams = lru_cache(maxsize=_NETWORKS)(module_streams)
        self._block_streams = lru_cache(maxsize=_NETWORKS)(block_streams)

    def streams(self, model: torch.nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return a stream for each name; parameters that share one have the same.

        Args:
            model: The network as it is now; looked at only where streams follow its blocks.
            names: Names as `nissa.gradients.selection.Selection.names` gives them.
        """
        if self._group_by == "parameter":
            return names
        if self._group_by == "module":
            return self._module_streams(names)
        return self._block_streams(names, containers(model))


def containers(model: torch.nn.Module) -> frozenset[str]:
    """Return the paths of lists, dictionaries and sequences of modules, ``""`` for the network itself."""
    # As in names, without what wrappers inserted.
    return frozenset(_clean_path(path) for path, module in model.named_modules() if isinstance(module, _CONTAINERS))


def _clean_path(path: str) -> str:
    # Only in front of something can a path be clean of all wrappers: it may consist of them.
    return clean_name(f"{path}.*").rpartition(".")[0]


def module_streams(names: "Iterable[str]") -> tuple[str, ...]:
    """Return for each parameter ``<module path>.*``, ``*`` where the network itself owns it."""
    return tuple(_everything_in(name.rpartition(".")[0]) for name in names)


def block_streams(names: "Iterable[str]", within: frozenset[str]) -> tuple[str, ...]:
    """Return for each parameter ``<path>.*`` of its block.

    That is the element of the outermost container above it; without one, the network's child above it; and what owns it
    where there is neither.

    Args:
        names: The parameters.
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
    """Return the rows with the largest L2 norm, at most ``k``, in their own order.

    Rows with NaN or infinite elements are the largest of all, those without any element that could be measured the
    smallest; of equal ones the first is taken.
    """
    nonfinite = moments.nonfinite > 0
    norm = np.where(np.isnan(moments.norm), np.where(nonfinite, np.inf, -np.inf), moments.norm)
    descending = np.lexsort((np.arange(len(norm)), -norm, ~nonfinite))
    return np.sort(descending[:k])
