"""Cumulative counts of the calls that a fused optimizer skipped, kept where its ``found_inf`` is.

Every row carries the whole count. An increment would be lost with a row that is dropped; a cumulative count is correct
again with the next row that arrives.
"""

from collections.abc import Mapping, MutableMapping

import torch

from nissa.gradients.step_metadata import OVERFLOW, SKIPPED_CALLS, SKIPPED_SAMPLES


class SkipCount:
    """Number of calls with a ``found_inf`` that is not zero.

    Args:
        prefix: Beginning of the names of its numbers. There is one number for the host and one per device on which
            ``found_inf`` has ever been; `total` adds them up again.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._on_host = 0
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def add(self, found_inf: torch.Tensor | float) -> None:
        """Count one call; a tensor is neither read nor waited for."""
        if not isinstance(found_inf, torch.Tensor):
            self._on_host += found_inf != 0.0
            return
        # Never in place: under inference mode, or within a CUDA graph's memory pool, the older tensor may not be written.
        skipped = found_inf.detach().reshape(()).ne(0)
        before = self._on_device.get(skipped.device)
        self._on_device[skipped.device] = skipped.to(torch.float64) if before is None else before + skipped

    def write(self, known: MutableMapping[str, float], moving: MutableMapping[str, torch.Tensor]) -> None:
        """Add the count to the numbers of a row; nothing where no call was skipped on the host or on any device."""
        if self._on_host:
            known[f"{self._prefix}host"] = float(self._on_host)
        for device, count in self._on_device.items():
            moving[f"{self._prefix}{device}"] = count


def total(numbers: Mapping[str, float], prefix: str) -> int:
    """Return the count that `SkipCount.write` added to the numbers of a row."""
    return int(sum(number for name, number in numbers.items() if name.startswith(prefix)))


class SkipCounts:
    """Skipped calls of one optimizer, and how many of them were sampled."""

    def __init__(self) -> None:
        self._calls = SkipCount(SKIPPED_CALLS)
        self._samples = SkipCount(SKIPPED_SAMPLES)

    def count(
        self, known: MutableMapping[str, float], moving: MutableMapping[str, torch.Tensor], *, sampled: bool
    ) -> None:
        """Count the call that the numbers belong to, and add the counts up to and including it to them."""
        found_inf = moving.get(OVERFLOW, known.get(OVERFLOW))
        if found_inf is not None:
            self._calls.add(found_inf)
            if sampled:
                self._samples.add(found_inf)
        self._calls.write(known, moving)
        if sampled:
            self._samples.write(known, moving)
