"""Packing of all numbers of a step into one tensor per device, so that each device needs one copy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Packing:
    """Contents of the tensors returned by `pack`: first rows of statistics with integers and scalars appended, then these only.

    Args:
        number_names: Names of the scalars at the end of each tensor.
        parts: Number of tensors that begin with rows.
        lanes: Index of the tensor and number of the integer lanes of each device, which are before the scalars.
    """

    number_names: tuple[tuple[str, ...], ...] = ()
    parts: int = 0
    lanes: tuple[tuple[int, int], ...] = ()

    def unpack(self, arrays: "Sequence[NDArray[np.generic]]") -> "tuple[list[NDArray[np.generic]], dict[str, float]]":
        """Return the flattened rows of each part, and the scalars by name."""
        rows: list[NDArray[np.generic]] = []
        numbers: dict[str, float] = {}
        lanes = dict(self.lanes)
        for index, (array, names) in enumerate(zip(arrays, self.number_names, strict=True)):
            flat = array.reshape(-1)
            cut = flat.size - len(names)
            if index < self.parts:
                rows.append(flat[: cut - lanes.get(index, 0)])
            numbers |= zip(names, map(float, np.ascontiguousarray(flat[cut:]).view(np.float64)), strict=True)
        return rows, numbers

    def unpack_lanes(self, arrays: "Sequence[NDArray[np.generic]]") -> "NDArray[np.int64]":
        """Return the integer lanes of all devices, in the order of `pack`."""
        found = [np.zeros(0, dtype=np.int64)]
        for index, number in self.lanes:
            flat = arrays[index].reshape(-1)
            cut = flat.size - len(self.number_names[index])
            found.append(flat[cut - number : cut].astype(np.int64))
        return np.concatenate(found)


def pack(
    parts: "Sequence[torch.Tensor]", numbers: "Mapping[str, torch.Tensor]", lanes: "Sequence[torch.Tensor]" = ()
) -> tuple[list[torch.Tensor], Packing]:
    """Combine statistics, integers and scalars, without waiting for a device.

    Args:
        parts: int64 statistics, one tensor per device.
        numbers: One-element tensors on any device, by name. They are copied.
        lanes: int64 tensors of one dimension, at most one per device.

    Returns:
        The tensors to copy to the host, at most one per device other than the CPU, and the `Packing` that unpacks them.
    """
    tensors = list(parts)
    names: list[tuple[str, ...]] = [() for _ in parts]
    places: dict[torch.device, tuple[int, int]] = {}
    by_lane = {lane.device: lane for lane in lanes}
    of_device = _by_device(numbers)
    for device in dict.fromkeys((*by_lane, *of_device)):
        together, lane = of_device.get(device, ()), by_lane.get(device)
        tail = _tail([numbers[name] for name in together], lane)
        # Do not concatenate on the CPU: no transfer would be saved, and the statistics would be copied.
        shared = (index for index, part in enumerate(parts) if part.device == device and device.type != "cpu")
        at = next(shared, len(tensors))
        if at == len(tensors):
            tensors.append(tail)
            names.append(together)
        else:
            tensors[at] = torch.cat([tensors[at].reshape(-1), tail])
            names[at] = together
        if lane is not None:
            places[device] = at, len(lane)
    return tensors, Packing(tuple(names), len(parts), tuple(places[lane.device] for lane in lanes))


def _tail(numbers: "Sequence[torch.Tensor]", lane: "torch.Tensor | None") -> torch.Tensor:
    """Return integer lanes and the bits of scalars of one device."""
    if lane is None:
        return _bits(numbers)
    return torch.cat([lane, _bits(numbers)]) if numbers else lane


def one_number(value: torch.Tensor, called: str) -> torch.Tensor:
    """Return the tensor after checking that it has one element.

    Raises:
        ValueError: It has several elements.
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
    """Return scalars as the bits of their float64, shape ``(len(numbers),)``, in newly allocated memory."""
    wide = [number.to(torch.float64, copy=len(numbers) == 1).reshape(1) for number in numbers]
    return (wide[0] if len(wide) == 1 else torch.cat(wide)).view(torch.int64)
