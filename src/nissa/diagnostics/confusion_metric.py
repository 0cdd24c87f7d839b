"""Confusion counts and losses of a validation on the device: a torchmetrics metric without synchronization.

The confusion matrix of torchmetrics drops excluded elements with a mask and counts with ``torch.bincount``. Both
synchronize with the GPU in every batch. Here excluded elements are counted in extra cells, so that all shapes are static.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

IGNORED, OUT_OF_RANGE = -2, -1
"""Indices of the excluded elements in the counts, from the end."""

TOTAL, WEIGHT, PER_CLASS = 0, 1, 2
"""Indices in the losses: sum, number of elements, then the sums per class followed by the numbers per class."""


class ConfusionMetric(Metric):
    """Counts and loss sums over all batches.

    Args:
        classes: Number of classes.
        joint: Count pairs of true and predicted class, ``classes ** 2`` counts. Otherwise count wrong and correct
            predictions per true class, ``2 * classes`` counts.
        device: Device of the sums.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    counts: Tensor
    losses: Tensor

    def __init__(self, classes: int, *, joint: bool, device: torch.device) -> None:
        super().__init__(sync_on_compute=False)
        self.classes, self.joint = classes, joint
        # MPS does not support float64.
        real = torch.float32 if device.type == "mps" else torch.float64
        cells = classes * (classes if joint else 2)
        # The two extra cells count ignored and out-of-range elements.
        self.add_state("counts", torch.zeros(cells + 2, dtype=torch.int64, device=device), dist_reduce_fx="sum")
        self.add_state("losses", torch.zeros(2 + 2 * classes, dtype=real, device=device), dist_reduce_fx="sum")
        self.to(device)

    def update(self, predicted: Tensor, targets: Tensor, loss: Tensor | float | None, ignored: int | None) -> None:
        """Add a batch: classes of any shape, and either the mean loss or losses of the same shape."""
        left_out = torch.zeros_like(targets, dtype=torch.bool) if ignored is None else targets == ignored
        valid = (targets >= 0) & (targets < self.classes) & (predicted >= 0) & (predicted < self.classes) & ~left_out
        if targets.is_floating_point():
            valid &= targets == targets.trunc()
        targets = torch.where(valid, targets, 0).to(torch.int64)
        cells = self._cells(targets, predicted.to(torch.int64))
        elsewhere = torch.where(left_out, len(self.counts) + IGNORED, len(self.counts) + OUT_OF_RANGE)
        cells = torch.where(valid, cells, elsewhere).flatten()
        self.counts.scatter_add_(0, cells, torch.ones_like(cells))
        if loss is not None:
            self._add(loss, targets.flatten(), valid.flatten())

    def _cells(self, targets: Tensor, predicted: Tensor) -> Tensor:
        return targets * self.classes + predicted if self.joint else targets * 2 + (targets == predicted)

    def _add(self, loss: Tensor | float, targets: Tensor, valid: Tensor) -> None:
        weights = valid.to(self.losses.dtype)
        number = weights.sum()
        self.losses[WEIGHT].add_(number)
        if not isinstance(loss, Tensor) or loss.ndim == 0:
            # The mean loss of a batch without valid elements is NaN, so exclude it from the sum.
            self.losses[TOTAL].add_(torch.where(number > 0, number * loss, 0))
            return
        each = torch.where(valid, loss.flatten().to(self.losses.dtype), 0)
        self.losses[TOTAL].add_(each.sum())
        sums = self.losses[PER_CLASS:].view(2, self.classes)
        sums[0].scatter_add_(0, targets, each)
        sums[1].scatter_add_(0, targets, weights)

    def compute(self) -> Tensor:
        """Return the result of `packed`; torchmetrics requires this method."""
        return self.packed()

    def packed(self) -> Tensor:
        """Return counts and losses in one int64 tensor, so that a single copy suffices; losses keep their bit pattern."""
        bits = torch.int64 if self.losses.dtype == torch.float64 else torch.int32
        return torch.cat((self.counts, self.losses.view(bits).to(torch.int64)))
