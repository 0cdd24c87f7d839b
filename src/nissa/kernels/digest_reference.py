"""Digest of tensors: 64 bits that are equal for equal bits, to compare weights between ranks without sending them.

Formula, with all arithmetic modulo 2**64. The elements of a tensor, in row-major order, are bytes of little-endian numbers. Eight
bytes are a lane; the last one is filled with zeros. The digest is::

    digest = m(bytes, -1) + sum(m(lane[j], j) for j in range(lanes))
    m(lane, j) = s(lane + (j + 1) * 0x9E3779B97F4A7C15)

``s`` is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) with the
constants of variant 13 of Stafford (Better Bit Mixing, 2011). Properties:

- It is exact: it reads every bit, and rounds nothing. ``-0.0`` and ``0.0`` differ, as do NaN with different payloads.
- Additions of integers commute, so that it depends neither on threads nor on the device.
- ``s`` is a bijection. A change within one lane, such as a flipped bit, an opposite sign or a swap of neighbours, therefore always
  changes the digest.
- Changes of several lanes, such as swaps of distant values or opposite signs everywhere, leave it as it is with a probability of
  about 2**-64. It does not resist somebody who looks for such changes on purpose.
- It does not see shape, dtype and name, which are compared separately.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from nissa.kernels import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["digests_by_torch", "mixed", "stored_bits"]

LANE: Final = 8
"""Bytes of a lane."""

_STEP: Final = 0x9E3779B97F4A7C15
"""Difference that places add to a lane: 2**64 divided by the golden ratio."""

_FACTORS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS: Final = (30, 27, 31)
_LANES: Final = 2**18
"""Lanes that are mixed at a time, which bounds temporary memory."""


def stored_bits(tensor: "Tensor") -> "Tensor":
    """Return a tensor whose memory has the elements in row-major order; a copy if that of the tensor has not."""
    plain = tensor.detach()
    if (
        plain.is_contiguous() and not plain.is_neg() and not plain.is_conj()
    ):  # the usual case: three calls less per tensor
        return plain
    return plain.resolve_conj().resolve_neg().contiguous()


def digests_by_torch(tensors: "Sequence[Tensor]") -> "Tensor":
    """Return the digest of each tensor by operations of torch; the specification of every faster kernel."""
    if not tensors:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.stack([_digest(stored_bits(tensor)) for tensor in tensors])


def _digest(tensor: "Tensor") -> "Tensor":
    # Not `tensor.view(torch.uint8)`, which a tensor without dimensions refuses.
    raw = tensor.reshape(-1).view(torch.uint8)
    places = torch.arange(1, -(-raw.numel() // LANE) + 1, dtype=torch.int64, device=raw.device)
    size = torch.tensor([raw.numel()], dtype=torch.int64, device="cpu")
    total = mixed(reference.send(size, raw.device)).sum()
    for first in range(0, len(places), _LANES):
        part = raw[first * LANE : (first + _LANES) * LANE]
        filled = torch.nn.functional.pad(part, (0, -part.numel() % LANE))
        # A copy, because memory that is viewed as int64 must begin at a multiple of eight bytes.
        lanes = filled.clone().view(torch.int64)
        total = total + mixed(lanes + places[first : first + _LANES] * _signed(_STEP)).sum()
    return total


def mixed(lanes: "Tensor") -> "Tensor":
    """Return the finalizer of SplitMix64; additions and products of int64 wrap, like those of unsigned numbers."""
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        lanes = (lanes ^ _shifted(lanes, shift)) * _signed(factor)
    return lanes ^ _shifted(lanes, _SHIFTS[-1])


def _shifted(lanes: "Tensor", by: int) -> "Tensor":
    """Return a logical shift to the right; that of int64 repeats the sign."""
    return (lanes >> by) & ((1 << (64 - by)) - 1)


def _signed(bits: int) -> int:
    """Return an unsigned 64-bit number as the signed one with the same bits."""
    return int(np.uint64(bits).astype(np.int64))
