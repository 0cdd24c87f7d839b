"""Digests of tensors by the fastest kernel of their device; `nissa.kernels.digest_reference` states the formula."""

import logging
from typing import TYPE_CHECKING

import torch

from nissa.kernels import kernel_for, reference
from nissa.kernels.digest_reference import digests_by_torch, stored_bits
from nissa.kernels.native import TensorTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["digests"]

_logger = logging.getLogger("nissa")

_state = {"cuda_failed": False}


def digests(tensors: "Sequence[Tensor]") -> "Tensor":
    """Return the digest of each tensor, without waiting for a device.

    Args:
        tensors: Dense tensors on one device, of any dtype, shape, strides and size.

    Returns:
        int64 of shape ``(len(tensors),)`` on that device; the bits are those of an unsigned number.
    """
    stored = [stored_bits(tensor) for tensor in tensors]
    if not stored or kernel_for(stored[0].device.type) is reference.measure:
        return digests_by_torch(stored)
    if stored[0].device.type == "cpu":
        return _by_c(stored)
    return _by_triton(stored) if stored[0].device.type == "cuda" else digests_by_torch(stored)


def _by_c(tensors: "Sequence[Tensor]") -> "Tensor":
    table = TensorTable()
    for tensor in tensors:
        table.add_bytes(tensor)
    return torch.from_numpy(table.digests())


def _by_triton(tensors: "Sequence[Tensor]") -> "Tensor":
    if not _state["cuda_failed"]:
        try:
            from nissa.kernels.cuda_digest import digests_by_triton  # noqa: PLC0415 - Triton is on machines with CUDA only

            return digests_by_triton(tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a broken compiler must only cost speed, so catch everything
            _state["cuda_failed"] = True
            _logger.warning("The compiled digest for CUDA failed; using the slower one.", exc_info=error)
    return digests_by_torch(tensors)
