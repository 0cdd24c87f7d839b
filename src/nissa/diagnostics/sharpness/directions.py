"""Random directions of unit length per tensor, from separate generators that leave the global random state unchanged."""

from math import prod
from typing import TYPE_CHECKING, Final

import torch

from nissa.torch_compat import foreach_clamp_min_, foreach_div_, foreach_norm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

MAX_KEPT_BYTES: Final = 2**26
"""Maximum size of directions to cache. Drawing them often takes most of the time of a measurement."""

_EPSILON = torch.finfo(torch.float32).tiny


class Directions:
    """Directions for the tensors of a network: ``g / ||g||`` of each tensor with ``g`` from ``N(0, 1)``, float32.

    Reused directions also make measurements comparable, because only changes of the network affect them. When the shapes of
    the network change, the directions are drawn again.

    Args:
        seed: Seed of the generators.
        max_kept_bytes: Maximum size of cached directions; larger ones are drawn on each access.
    """

    def __init__(self, seed: int = 0, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._seed = seed
        self._max_kept = max_kept_bytes
        self._generators: dict[torch.device, torch.Generator] = {}
        self._kept: list[list[Tensor]] = []
        self._drawn_for: object = None

    def of(self, tensors: "Sequence[Tensor]", samples: int) -> "DirectionsOf":
        """Return ``samples`` directions for tensors."""
        key = [(each.shape, each.device) for each in tensors]
        if key != self._drawn_for:
            self._kept, self._drawn_for = [], key
        keeps = samples * bytes_of(tensors) <= self._max_kept
        if keeps:
            self._kept.extend(self.draw(tensors) for _ in range(samples - len(self._kept)))
        return DirectionsOf(self, tensors, self._kept[:samples] if keeps else None)

    def draw(self, tensors: "Sequence[Tensor]") -> "list[Tensor]":
        """Return one new direction."""
        flat = {device: self._flat(device, tensors) for device in dict.fromkeys(each.device for each in tensors)}
        noise = [next(flat[each.device]).view(each.shape) for each in tensors]
        lengths = foreach_norm(noise)
        foreach_clamp_min_(lengths, _EPSILON)
        foreach_div_(noise, lengths)
        return noise

    def _flat(self, device: torch.device, tensors: "Sequence[Tensor]") -> "Iterator[Tensor]":
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        sizes = [prod(each.shape) for each in tensors if each.device == device]
        flat = torch.empty(sum(sizes), dtype=torch.float32, device=device)
        flat.normal_(generator=self._generators[device])
        return iter(torch.split(flat, sizes))


class DirectionsOf:
    """Sequence of directions for given tensors, cached or drawn on access."""

    def __init__(self, directions: Directions, tensors: "Sequence[Tensor]", kept: "list[list[Tensor]] | None") -> None:
        self._directions = directions
        self._tensors = tensors
        self.kept = kept

    def __getitem__(self, index: int) -> "list[Tensor]":
        return self._directions.draw(self._tensors) if self.kept is None else self.kept[index]


def bytes_of(tensors: "Sequence[Tensor]") -> int:
    """Return the size of one direction in bytes."""
    return 4 * sum(prod(each.shape) for each in tensors)


def wide(tensor: "Tensor") -> "Tensor":
    """Return half-precision tensors as float32, since half precision would round away a fraction of a step."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
