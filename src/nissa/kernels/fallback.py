"""Fallback from a compiled kernel to the reference kernel after an error."""

import logging
from typing import TYPE_CHECKING

import torch

from nissa.kernels import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nissa.kernels import Kernel
    from nissa.kernels.moments import Layout, Thresholds

_logger = logging.getLogger("nissa")


class FallbackKernel:
    """Kernel that switches to :mod:`nissa.kernels.reference` permanently after its first error.

    Most errors come from the compiler, which runs at the first measurement. Out-of-memory errors do not cause a switch,
    because the reference needs even more memory.

    Args:
        kernel: The compiled kernel.
        called: Its name in the warning.
    """

    def __init__(self, kernel: "Kernel", called: str) -> None:
        self._kernel: Kernel = kernel
        self._called = called

    def __call__(
        self, tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
    ) -> "Tensor":
        """Return the packed statistics of tensors, like the reference."""
        try:
            return self._kernel(tensors, layout, thresholds, scale)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            measured = reference.measure(tensors, layout, thresholds, scale)  # raises if the tensors caused the error
            _logger.warning("%s failed; using the slower one, which measures the same.", self._called, exc_info=error)
            self._kernel = reference.measure
            return measured
