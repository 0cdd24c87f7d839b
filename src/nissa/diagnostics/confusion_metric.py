"""Counts of a validation where its numbers are: a metric of torchmetrics that never waits for a device.

The library's own confusion matrix takes what it leaves out by a mask, and counts by ``torch.bincount``: both wait for a
GPU in every batch. Here what is left out is counted in places of its own, so that nothing depends on how much it is.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

IGNORED, OUT_OF_RANGE = -2, -1
"""Where in the counts those stand that are left out."""

TOTAL, WEIGHT, PER_CLASS = 0, 1, 2
"""What stands in the losses: their sum, over how many, then sums of each class, then how many of each."""


class ConfusionMetric(Metric):
    """Sums over all batches.

    Args:
        classes: How many there are.
        joint: Count pairs of true and predicted class: ``classes ** 2`` counts. Else count each class's examples that
            were missed and hit: ``2 * classes``.
        device: Where the sums are.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    counts: Tensor
    losses: Tensor

    def __init__(self, classes: int, *, joint: bool, device: torch.device) -> None:
        super().__init__(sync_on_compute=False)
        self.classes, self.joint = classes, joint
        # There is no float64 on Apple's devices.
        real = torch.float32 if device.type == "mps" else torch.float64
        cells = classes * (classes if joint else 2)
        self.add_state("counts", torch.zeros(cells + 2, dtype=torch.int64, device=device), dist_reduce_fx="sum")
        self.add_state("losses", torch.zeros(2 + 2 * classes, dtype=real, device=device), dist_reduce_fx="sum")
        self.to(device)

    def update(self, predicted: Tensor, targets: Tensor, loss: Tensor | float | None, ignored: int | None) -> None:
        """Count a batch: classes of any shape, and the mean loss or one of the same shape."""
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
            # A mean over nothing is NaN, and counts for nothing.
            self.losses[TOTAL].add_(torch.where(number > 0, number * loss, 0))
            return
        each = torch.where(valid, loss.flatten().to(self.losses.dtype), 0)
        self.losses[TOTAL].add_(each.sum())
        sums = self.losses[PER_CLASS:].view(2, self.classes)
        sums[0].scatter_add_(0, targets, each)
        sums[1].scatter_add_(0, targets, weights)

    def compute(self) -> Tensor:
        """Return what `packed` does; the library asks for it by this name."""
        return self.packed()

    def packed(self) -> Tensor:
        """Return counts and losses in one tensor: int64, with the bits of the losses."""
        bits = torch.int64 if self.losses.dtype == torch.float64 else torch.int32
        return torch.cat((self.counts, self.losses.view(bits).to(torch.int64)))
