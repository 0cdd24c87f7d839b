"""Copies of tensors from devices to the host: the only module that waits for a device, because a caller needs a number.

During a step the training thread only starts a `Transfer`. A validation waits for its result (`to_host`, `number`).

The module belongs to the kernels, because gradients and diagnostics both use it and must not import each other.
"""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMPY: Final = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32}

_POLL_SECONDS: Final = 0.0002


class Transfer:
    """Copy of tensors to the host, started on construction.

    On CUDA this is an asynchronous copy into pinned memory, followed by an event. On other devices it does nothing.

    Args:
        tensors: Owned by the transfer from now on; at most one per device.
    """

    __slots__ = ("_events", "_hosts")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._events: list[Any] = []
        self._hosts = [self._begin(tensor) for tensor in tensors]

    def _begin(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cuda":
            return tensor
        # torch's host allocator recycles pinned blocks, so this allocates only until the pipeline is full.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        event.record(torch.cuda.current_stream(tensor.device))
        self._events.append(event)
        return host

    def ready(self) -> bool:
        """Whether the copy has completed; never waits."""
        return all(event.query() for event in self._events)

    def arrays(self, timeout: float | None = None) -> "list[NDArray[np.generic]]":
        """Return the numbers; waits until the copy has completed.

        Arrays of CPU tensors share the memory of these. Others own theirs, so that pinned memory is soon free again.

        Raises:
            TimeoutError: The device did not finish within ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self.ready():
            if deadline is not None and monotonic() > deadline:
                raise TimeoutError(f"The device has not finished within {timeout:g} s.")
            sleep(_POLL_SECONDS)
        return [host.numpy().copy() if self._events else host.cpu().numpy() for host in self._hosts]


def to_host(tensor: torch.Tensor, timeout: float | None = None) -> "NDArray[np.generic]":
    """Return the values of a tensor after one copy; waits for at most ``timeout`` seconds, without a limit for None.

    Raises:
        TimeoutError: The device did not finish within ``timeout`` seconds.
    """
    (array,) = Transfer([tensor]).arrays(timeout)
    return array


def number(value: object, timeout: float) -> float | None:
    """Return an argument of the caller as a float; a tensor is copied from its device.

    Returns None for None, and if the device did not finish within ``timeout`` seconds.
    """
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        return float(value)  # type: ignore[arg-type]  # float() raises on an invalid argument of the caller
    if value.numel() != 1:
        raise ValueError(f"Expected one number, not a tensor of shape {tuple(value.shape)}; give its mean.")
    try:
        return float(to_host(value.detach().reshape(1).to(torch.float64), timeout)[0])
    except TimeoutError:
        return None


def on_host(value: torch.Tensor) -> float | None:
    """Return the value of a CPU tensor, or None if it must be read back like a device tensor.

    The value is read through NumPy, because a torch operation costs tens of microseconds between two steps.
    """
    # numpy() fails on subclasses, inside torch.func transforms, and on tensors with the negative bit set.
    plain = type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype in _NUMPY
    return float(value.numpy().item()) if plain and not value.requires_grad and not value.is_neg() else None


def side_by_side(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Concatenate the columns of two tensors that have equally many rows and the same device."""
    if left.device.type != "cpu":
        return torch.cat([left, right], dim=1)
    # Not torch.cat, which would wake torch's thread pool.
    return torch.from_numpy(np.concatenate((left.numpy(), right.numpy()), axis=1))


def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate the rows of tensors that have equally many columns and the same device."""
    if len(tensors) == 1 or tensors[0].device.type != "cpu":
        return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    return torch.from_numpy(np.concatenate([tensor.numpy() for tensor in tensors]))
