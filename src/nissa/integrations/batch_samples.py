"""Number of samples of a batch."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def batch_samples(batch: Any) -> int | None:
    """Return the first dimension of the tensors in a batch; None if they disagree or there are none.

    Example:
        >>> batch_samples({"x": torch.zeros(4, 3), "labels": [torch.zeros(4)]})
        4
    """
    sizes = set(_sizes(batch))
    return sizes.pop() if len(sizes) == 1 else None


def _sizes(batch: Any) -> Iterator[int]:
    if isinstance(batch, torch.Tensor):
        if batch.ndim:
            yield batch.shape[0]
    elif isinstance(batch, Mapping):
        for each in batch.values():
            yield from _sizes(each)
    elif isinstance(batch, list | tuple):
        for each in batch:
            yield from _sizes(each)
