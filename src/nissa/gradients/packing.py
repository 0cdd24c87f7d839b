"""All numbers of one step as one tensor per device, so that each device is copied from once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Packing:
    """Says what the tensors of `pack` hold: rows of statistics, each part with numbers behind it, then numbers alone.

    Args:
        number_names: Names of the numbers at the end of each tensor.
        parts: How many of the tensors begin with rows.
    """

    number_names: tuple[tuple[str, ...], ...] = ()
    parts: int = 0

    def unpack(self, arrays: "Sequence[NDArray[np.generic]]") -> "tuple[list[NDArray[np.generic]], dict[str, float]]":
        """Return the flat rows of each part, and the numbers by name."""
        rows: list[NDArray[np.generic]] = []
        numbers: dict[str, float] = {}
        for index, (array, names) in enumerate(zip(arrays, self.number_names, strict=True)):
            flat = array.reshape(-1)
            cut = flat.size - len(names)
            if index < self.parts:
                rows.append(flat[:cut])
            numbers |= zip(names, map(float, np.ascontiguousarray(flat[cut:]).view(np.float64)), strict=True)
        return rows, numbers


def pack(parts: "Sequence[torch.Tensor]", numbers: "Mapping[str, torch.Tensor]") -> tuple[list[torch.Tensor], Packing]:
    """Put statistics and single numbers together, without waiting for a device.

    Args:
        parts: int64 statistics, one tensor per device.
        numbers: Tensors of one element each, on any device. They are copied.

    Returns:
        The tensors to bring to the host, at most one per device other than the host's, and how to take them apart.
    """
    tensors = list(parts)
    names: list[tuple[str, ...]] = [() for _ in parts]
    for device, together in _by_device(numbers).items():
        tail = _bits([numbers[name] for name in together])
        # On the host nothing is saved by one tensor less, and the statistics would be copied for it.
        shared = (index for index, part in enumerate(parts) if part.device == device and device.type != "cpu")
        at = next(shared, None)
        if at is None:
            tensors.append(tail)
            names.append(together)
        else:
            tensors[at] = torch.cat([tensors[at].reshape(-1), tail])
            names[at] = together
    return tensors, Packing(tuple(names), len(parts))


def one_number(value: torch.Tensor, called: str) -> torch.Tensor:
    """Return a tensor that was given as one number.

    Raises:
        ValueError: It holds several.
    """
    if value.numel() != 1:
        raise ValueError(f"{called} takes one number, not a tensor of shape {tuple(value.shape)}; give its mean.")
    return value


def _by_device(numbers: "Mapping[str, torch.Tensor]") -> dict[torch.device, tuple[str, ...]]:
    together: dict[torch.device, tuple[str, ...]] = {}
    for name, number in numbers.items():
        together[number.device] = (*together.get(number.device, ()), name)
    return together


def _bits(numbers: "Sequence[torch.Tensor]") -> torch.Tensor:
    """Return numbers as the bits of their float64, shape ``(len(numbers),)``, in memory of their own."""
    wide = [number.to(torch.float64, copy=len(numbers) == 1).reshape(1) for number in numbers]
    return (wide[0] if len(wide) == 1 else torch.cat(wide)).view(torch.int64)
