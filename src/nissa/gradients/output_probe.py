"""Numbers about the output of a model and the gradient that a loss sends back to it.

The gradient shows what the loss does with an output, without a look at the loss itself. Cross entropy of ``z`` sends back
``(softmax(z) - target) / N``, and binary cross entropy with logits ``(sigmoid(z) - target) / N``: after division by the function
of ``z``, all entries of other classes are the same constant. Where ``z`` is already a probability, that constant proves that the
loss has taken it for a logit.
"""

from typing import Final

import torch
from torch import Tensor

_MOST_CLASSES: Final = 1_000
_MOST_ELEMENTS: Final = 1 << 20
_SUM: Final = 1e-3
_SPREAD: Final = 1e-3
"""Relative distance of the constant between entries; float32 rounding stays far below it."""

_DIFFERENCE: Final = 20 * _SPREAD
_FEWEST: Final = 4


def output_signals(values: Tensor, gradient: Tensor) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Return values for contracts about an output, and its number of samples and classes; nothing where they are unknown.

    The values are:

    - ``probability``: 1 if the output is a probability that the loss takes for a logit, else 0; NaN if all samples have
      nearly the same output, of which any loss has a constant ratio.
    - ``top_share``, ``top_class``: the most frequent class in the batch and its share, as the gradient of cross entropy shows
      them; NaN for another loss.

    Args:
        values: Output of shape ``(N, C, ...)``, or ``(N)`` and ``(N, 1)`` for two classes.
        gradient: Gradient of the loss with respect to it.
    """
    if gradient.shape != values.shape or values.numel() > _MOST_ELEMENTS or values.is_complex():
        return {}, (0, 0)
    if values.dim() < 2 or values.shape[1] == 1:  # noqa: PLR2004 - one output per sample
        flat, back = values.reshape(-1).double(), gradient.reshape(-1).double()
        if len(flat) < _FEWEST:
            return {}, (0, 0)
        return {"probability": _known(flat, _binary(flat, back))}, (len(flat), 1)
    rows, back = _rows(values), _rows(gradient)
    samples, classes = rows.shape
    if samples < _FEWEST or classes > _MOST_CLASSES:
        return {}, (0, 0)
    share, label = _classes(back)
    probability = _known(rows, _categorical(rows, back) | _binary(rows, back))
    return {"probability": probability, "top_share": share, "top_class": label}, (samples, classes)


def _rows(tensor: Tensor) -> Tensor:
    """Return ``(N, C, ...)`` as ``(samples, C)``."""
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1]).double()


def _categorical(values: Tensor, gradient: Tensor) -> Tensor:
    """Whether rows are distributions, and the gradient is that of cross entropy of them as logits."""
    distributions = ((values >= 0).all(1) & ((values.sum(1) - 1).abs() < _SUM)).all()
    ratio = gradient / values.softmax(1)
    constant = ratio.amax(1, keepdim=True)
    agree = ((ratio - constant).abs() <= _SPREAD * constant.abs()).sum(1) >= values.shape[1] - 1
    targets = (gradient < 0).sum(1) == 1
    return distributions & agree.all() & targets.all() & _equal(constant)


def _binary(values: Tensor, gradient: Tensor) -> Tensor:
    """Whether values are in (0, 1), and the gradient is that of binary cross entropy of them as logits."""
    inside = ((values >= 0) & (values <= 1)).all()
    logistic = values.sigmoid()
    constant = gradient.abs() / torch.where(gradient > 0, logistic, 1 - logistic)
    return inside & _equal(constant)


def _equal(constant: Tensor) -> Tensor:
    """Whether positive numbers are equal but for rounding."""
    low, high = constant.amin(), constant.amax()
    return (low > 0) & (high - low <= _SPREAD * high)


def _known(values: Tensor, found: Tensor) -> Tensor:
    """Return a finding as a number, NaN if outputs hardly differ between samples."""
    differs = (values.amax(0) - values.amin(0)).amax() > _DIFFERENCE
    return torch.where(differs, found.double(), torch.nan)


def _classes(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return share and class of the most frequent target; NaN if the gradient is not that of cross entropy."""
    sums = gradient.sum(1).abs() <= _SUM * gradient.abs().sum(1)
    known = ((gradient < 0).sum(1) == 1).all() & sums.all()
    labels = gradient.argmin(1)
    counts = torch.zeros(gradient.shape[1], dtype=torch.float64, device=gradient.device)
    counts = counts.scatter_add(0, labels, torch.ones_like(labels, dtype=torch.float64))
    share = counts.amax() / len(labels)
    missing = torch.full_like(share, torch.nan)
    return torch.where(known, share, missing), counts.argmax()
