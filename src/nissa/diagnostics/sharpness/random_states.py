"""Global random states that a loss may use."""

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


class RandomStates:
    """Global random states of torch, numpy and Python at the time of creation.

    Args:
        devices: Devices whose generators are included in addition to the CPU's.
    """

    def __init__(self, devices: "Iterable[torch.device]") -> None:
        self._devices = [device for device in devices if device.type in ("cuda", "mps")]
        self._states = self._read()

    def _read(self) -> tuple[list[torch.Tensor], Any, Any]:
        on_devices = [
            torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.mps.get_rng_state()
            for device in self._devices
        ]
        return [torch.get_rng_state(), *on_devices], np.random.get_state(), random.getstate()  # noqa: NPY002 - the user's

    def changed(self) -> bool:
        """Whether any of the states has changed since creation."""
        (torchs, numpys, pythons), (now, numpys_now, pythons_now) = self._states, self._read()
        return (
            any(not one.equal(other) for one, other in zip(torchs, now, strict=True))
            or numpys[2:] != numpys_now[2:]
            or not np.array_equal(numpys[1], numpys_now[1])
            or pythons != pythons_now
        )

    def restore(self) -> None:
        """Restore the states."""
        (on_host, *on_devices), numpys, pythons = self._states
        torch.set_rng_state(on_host)
        for device, state in zip(self._devices, on_devices, strict=True):
            if device.type == "cuda":
                torch.cuda.set_rng_state(state, device)
            else:
                torch.mps.set_rng_state(state)
        np.random.set_state(numpys)  # noqa: NPY002 - the user's
        random.setstate(pythons)
