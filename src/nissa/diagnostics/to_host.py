"""Blocking copy from a device to the host, for calls outside training steps whose result is needed at once."""

from time import monotonic, sleep
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLL_SECONDS = 0.0002


def to_host(tensor: torch.Tensor, wait: float | None = None) -> "NDArray[np.generic]":
    """Return the values of a tensor after one copy. Wait for at most ``wait`` seconds; None waits without a limit.

    Raises:
        TimeoutError: The device had not finished by then.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    event.record(torch.cuda.current_stream(tensor.device))
    deadline = None if wait is None else monotonic() + wait
    while not event.query():  # type: ignore[no-untyped-call]  # as above
        if deadline is not None and monotonic() > deadline:
            raise TimeoutError(f"The device has not finished within {wait:g} s what was to be measured.")
        sleep(_POLL_SECONDS)
    return host.numpy()
