"""Handwritten digits of scikit-learn with added noise, so that a larger network has a measurable advantage.

Almost any network solves the clean digits. Noise keeps the small host well below the best possible accuracy, so that
the effect of a seed can be measured. Training images get new noise in every pass. Validation images get noise once, so
that all accuracies are measured on identical pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor

CLASSES = 10
"""Number of classes: the digits 0 to 9."""

NOISE = 0.3
"""Standard deviation of the Gaussian noise; clean pixels are in [0, 1]."""

TRAINING_IMAGES = 897
"""Number of training images; the other 900 are for validation."""

VALIDATION_COPIES = 3
"""Number of copies of each validation image, each with different noise."""

PASSES = 2
"""Number of passes over the training images per epoch."""


@dataclass(frozen=True)
class Split:
    """Images of shape (N, 1, 8, 8), and labels of shape (N,) with the digit of each."""

    images: "Tensor"
    labels: "Tensor"


@dataclass(frozen=True)
class Digits:
    """Clean training images and noisy validation images."""

    training: Split
    validation: Split


def load(generator: "Generator") -> Digits:
    """Load scikit-learn's digits, split them, and add noise to the validation images."""
    images, labels = _read()
    order = torch.randperm(len(labels), generator=generator)
    training, validation = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:].repeat(VALIDATION_COPIES)
    return Digits(
        training=Split(images[training], labels[training]),
        validation=Split(_noisy(images[validation], generator), labels[validation]),
    )


def batches(split: Split, *, size: int, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield the shuffled batches of one epoch, with new noise."""
    for _ in range(PASSES):
        for chosen in torch.split(torch.randperm(len(split.labels), generator=generator), size):
            yield _noisy(split.images[chosen], generator), split.labels[chosen]


def _noisy(images: "Tensor", generator: "Generator") -> "Tensor":
    return images + NOISE * torch.randn(images.shape, generator=generator)


def _read() -> "tuple[Tensor, Tensor]":
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - only the demo needs scikit-learn
    except ImportError as error:
        message = "The demo trains on scikit-learn's digits, and scikit-learn is missing: pip install 'nissa[demo]'"
        raise ConfigurationError(message) from error
    digits = load_digits()
    images = torch.as_tensor(digits.images, dtype=torch.float32).unsqueeze(1) / digits.images.max()
    return images, torch.as_tensor(digits.target, dtype=torch.long)
