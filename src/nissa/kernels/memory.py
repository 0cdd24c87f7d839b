"""What of a tensor is measured, and how it lies in memory; the same for every kernel."""

from typing import TYPE_CHECKING

import torch

from nissa.kernels.formats import FORMATS

if TYPE_CHECKING:
    from torch import Tensor


_PLAIN = {torch.Tensor, torch.nn.Parameter}


def is_plain(tensor: "Tensor") -> bool:
    """Tell whether a tensor can be read at its address on the CPU as it is, element after element."""
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
    """Return the real numbers that a tensor stores, as a dense tensor; duplicates of a sparse one are added up first.

    Args:
        tensor: Real or complex, dense or sparse.
        scale: What it was multiplied by, one element, on the same device. Fused optimizers divide in float32 where the
            gradient has half of that precision, and so does this.
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
    """Return how many real numbers a tensor has, stored or not."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def fills_its_memory(tensor: "Tensor") -> bool:
    """Tell whether the elements are, in some order, all that is there from the first to the last."""
    if tensor.is_contiguous():
        return True
    outermost_first = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(outermost_first).is_contiguous()
