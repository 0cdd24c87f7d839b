"""Gradient statistics on the device: one packed row per parameter.

A kernel reads tensors and fills the columns that :mod:`nissa.kernels.moments` lays out;
:mod:`nissa.kernels.reference` is the specification that every kernel agrees with.
"""

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

__all__ = ["Kernel", "kernel_for"]

_logger = logging.getLogger("nissa")

Kernel: TypeAlias = "Callable[[Sequence[Tensor], Layout, Thresholds], Tensor]"

# Device type -> the kernel chosen for it. A test forces a kernel by setting an entry.
_CHOSEN: dict[str, Kernel] = {}


def kernel_for(device_type: str) -> Kernel:
    """Return the kernel for a device type, such as ``"cpu"`` or ``"cuda"``; it is chosen once per process."""
    if device_type not in _CHOSEN:
        _CHOSEN[device_type] = _choose(device_type)
    return _CHOSEN[device_type]


def _choose(device_type: str) -> Kernel:
    from nissa.kernels.reference import measure  # noqa: PLC0415 - importing this package must not import torch

    if device_type != "cpu" or find_spec("numba") is None:
        return measure
    try:
        from nissa.kernels.cpu import prepare  # noqa: PLC0415 - nor numba

        return prepare()
    except Exception as error:  # a broken compiler costs speed, and nothing else
        _logger.warning(
            "The compiled kernel for the CPU cannot be used; the slower one measures the same.", exc_info=error
        )
        return measure
