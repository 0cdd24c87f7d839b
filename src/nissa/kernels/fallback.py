"""A kernel that gives way to the specification once it fails."""

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


class Contained:
    """Measures with a kernel until it fails, and with :mod:`nissa.kernels.reference` from then on.

    What fails is mostly a compiler, which runs when something is first measured. Memory that is short at the moment is no
    reason: the reference needs more.

    Args:
        kernel: The faster one.
        called: What it is called in the one line that is logged.
    """

    def __init__(self, kernel: "Kernel", called: str) -> None:
        self._kernel: Kernel = kernel
        self._called = called

    def __call__(
        self, tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
    ) -> "Tensor":
        """Return the packed statistics of tensors, as the reference does."""
        try:
            return self._kernel(tensors, layout, thresholds, scale)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            measured = reference.measure(tensors, layout, thresholds, scale)  # raises where the tensors are at fault
            _logger.warning("%s failed; the slower one measures the same.", self._called, exc_info=error)
            self._kernel = reference.measure
            return measured
