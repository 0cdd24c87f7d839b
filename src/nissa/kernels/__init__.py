"""Gradient statistics on the device: one packed row per parameter.

A kernel reads tensors and fills the columns defined in :mod:`nissa.kernels.moments`. :mod:`nissa.kernels.reference` is
the specification of every kernel.
"""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

__all__ = ["Kernel", "kernel_for"]

_logger = logging.getLogger("nissa")


class Kernel(Protocol):
    """Interface of a kernel; :func:`nissa.kernels.reference.measure` is the specification."""

    def __call__(
        self, tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
    ) -> "Tensor":
        """Return the packed statistics of tensors."""


class _Compiled(NamedTuple):
    """Compiled kernel of a device type: the module that it requires and the warning if it is absent, and its own module."""

    requires: str
    absent: str
    module: str


_COMPILED = {
    "cpu": _Compiled(
        "nissa.kernels._native",
        "Nissa was installed without a C compiler; install one and reinstall Nissa",
        "nissa.kernels.cpu",
    ),
    # torch for CUDA requires triton, but not on Windows.
    "cuda": _Compiled("triton", "triton is not installed", "nissa.kernels.triton"),
}

# Cache: device type -> kernel. Compiling and importing happen once; a test forces a kernel by setting an entry.
_CHOSEN: dict[str, Kernel] = {}


def kernel_for(device_type: str) -> Kernel:
    """Return the kernel for a device type, such as ``"cpu"`` or ``"cuda"``; cached per process."""
    if device_type not in _CHOSEN:
        _CHOSEN[device_type] = _choose(device_type)
    return _CHOSEN[device_type]


def _choose(device_type: str) -> Kernel:
    from nissa.kernels.reference import measure  # noqa: PLC0415 - importing this package must not import torch

    compiled = _COMPILED.get(device_type)
    if compiled is None:
        return measure
    if find_spec(compiled.requires) is None:
        _logger.warning("%s. The slower kernel is used, which measures the same.", compiled.absent)
        return measure
    try:
        prepared: Kernel = import_module(compiled.module).prepare()
    except Exception as error:  # a broken compiler must only cost speed, so catch everything
        _logger.warning(
            "The compiled kernel for %s cannot be used; using the slower one, which measures the same.",
            device_type,
            exc_info=error,
        )
        return measure
    return prepared
