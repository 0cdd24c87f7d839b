"""Stored elements of a tensor and their memory layout; shared by all kernels."""

from typing import TYPE_CHECKING

import torch

from nissa.kernels.formats import FORMATS

if TYPE_CHECKING:
    from torch import Tensor


_PLAIN = {torch.Tensor, torch.nn.Parameter}


def is_plain(tensor: "Tensor") -> bool:
    """Whether a tensor is a contiguous CPU tensor that compiled code can read directly at its address."""
    return (
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.dtype in FORMATS
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


def stored(tensor: "Tensor", scale: "Tensor | None" = None) -> "Tensor":
    """Return the real numbers that a tensor stores, as a dense tensor; duplicates of a sparse tensor are summed.

    Args:
        tensor: A real or complex, dense or sparse tensor.
        scale: Factor that the tensor was multiplied by, one element, on the same device. Half-precision gradients are
            divided in float32, like in fused optimizers.
    """
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
    if tensor.layout is not torch.strided:
        tensor = tensor.values()
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    if scale is None:
        return real
    return (real.float() if real.dtype.itemsize == 2 else real) / scale.reshape(())  # noqa: PLR2004 - half precision


def size(tensor: "Tensor") -> int:
    """Return the number of real numbers in a tensor, including implicit zeros."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def fills_its_memory(tensor: "Tensor") -> bool:
    """Whether the elements occupy one block of memory without gaps, in any dimension order."""
    if tensor.is_contiguous():
        return True
    outermost_first = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(outermost_first).is_contiguous()
