"""Digest of CUDA tensors, compiled by Triton: the formula of :mod:`nissa.kernels.digest_reference`, in one launch for any number of tensors.

A program mixes the lanes of one chunk of a tensor and adds its sum to the digest. Integers are added, so that the order of these
additions does not matter.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from nissa.kernels import device as device_code
from nissa.kernels import reference
from nissa.kernels.digest_reference import LANE, mixed
from nissa.kernels.triton import on_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_CHUNK: Final = 4096
"""Lanes per program."""

_ALIGNMENT: Final = 8
"""Bytes at whose multiples an address must begin: a GPU cannot load a lane from other addresses."""


def digests_by_triton(tensors: "Sequence[Tensor]") -> "Tensor":
    """Return the digest of each tensor, int64 of shape ``(len(tensors),)``, without waiting for the device.

    Args:
        tensors: Contiguous tensors on one device.
    """
    device = tensors[0].device
    # Clones keep their memory until the launch, which is ordered before it is used again.
    aligned = [each if each.data_ptr() % _ALIGNMENT == 0 else each.clone() for each in tensors]
    sizes = np.array([each.nbytes for each in aligned], dtype=np.int64)
    chunks = -(-sizes // (_CHUNK * LANE))
    first = np.cumsum(chunks) - chunks
    table = np.stack([[each.data_ptr() for each in aligned], sizes, first])
    row_of = np.repeat(np.arange(len(aligned), dtype=np.int64), chunks)
    places = reference.send(torch.from_numpy(table.astype(np.int64)), device)
    rows = reference.send(torch.from_numpy(row_of), device)
    found = mixed(places[1])
    if len(row_of):
        with on_device(device):
            device_code.add_digests[(len(row_of),)](rows, places, found, len(aligned), CHUNK=_CHUNK)
    return found
