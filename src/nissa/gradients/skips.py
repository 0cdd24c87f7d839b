"""Cumulative counts of the calls that a fused optimizer skipped, stored on the device of its ``found_inf``.

Every row carries the cumulative count. An increment would be lost with a dropped row; a cumulative count is correct
again with the next row that arrives.
"""

from collections.abc import Mapping, MutableMapping

import torch

from nissa.gradients.step_metadata import OVERFLOW, SKIPPED_CALLS, SKIPPED_SAMPLES


class SkipCount:
    """Number of calls with a nonzero ``found_inf``.

    Args:
        prefix: Prefix of the names of its scalars. One scalar counts for the host, and one for each device that has
            held a ``found_inf``; `total` returns their sum.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._on_host = 0
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def add(self, found_inf: torch.Tensor | float) -> None:
        """Count one call; a tensor is not read, so that this never waits for its device."""
        if not isinstance(found_inf, torch.Tensor):
            self._on_host += found_inf != 0.0
            return
        # Never add in place: inference tensors and memory of a CUDA graph may not be written.
        skipped = found_inf.detach().reshape(()).ne(0)
        before = self._on_device.get(skipped.device)
        self._on_device[skipped.device] = skipped.to(torch.float64) if before is None else before + skipped

    def write(self, known: MutableMapping[str, float], moving: MutableMapping[str, torch.Tensor]) -> None:
        """Add the count to the scalars of a row; adds nothing if no call was counted."""
        if self._on_host:
            known[f"{self._prefix}host"] = float(self._on_host)
        for device, count in self._on_device.items():
            moving[f"{self._prefix}{device}"] = count


def total(numbers: Mapping[str, float], prefix: str) -> int:
    """Return the count that `SkipCount.write` added to the scalars of a row."""
    return int(sum(number for name, number in numbers.items() if name.startswith(prefix)))


class SkipCounts:
    """Numbers of skipped calls and of skipped samples of one optimizer."""

    def __init__(self) -> None:
        self._calls = SkipCount(SKIPPED_CALLS)
        self._samples = SkipCount(SKIPPED_SAMPLES)

    def count(
        self, known: MutableMapping[str, float], moving: MutableMapping[str, torch.Tensor], *, sampled: bool
    ) -> None:
        """Count the call of this row, and add the counts including this call to its scalars."""
        found_inf = moving.get(OVERFLOW, known.get(OVERFLOW))
        if found_inf is not None:
            self._calls.add(found_inf)
            if sampled:
                self._samples.add(found_inf)
        self._calls.write(known, moving)
        if sampled:
            self._samples.write(known, moving)
