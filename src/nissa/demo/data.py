"""The handwritten digits of scikit-learn, made hard enough that a better network shows.

Clean digits are solved by almost anything. Noise on every image keeps the small host well below its ceiling, so that
what a seed adds can be measured. Training images get fresh noise each time they are seen; validation images get theirs
once, so that every comparison on them is a comparison on identical pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nissa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor

CLASSES = 10
"""Digits 0 to 9."""

NOISE = 0.3
"""Standard deviation of the noise; a clean pixel lies between 0 and 1."""

TRAINING_IMAGES = 897
"""Images to learn from; the other 900 are for validation."""

VALIDATION_COPIES = 3
"""How often each validation image occurs, each time under different noise."""

PASSES = 2
"""How often one epoch shows each training image."""


@dataclass(frozen=True)
class Split:
    """Images of shape (N, 1, 8, 8) and the digit that each one shows."""

    images: "Tensor"
    labels: "Tensor"


@dataclass(frozen=True)
class Digits:
    """Clean images to train on, noisy ones to validate on."""

    training: Split
    validation: Split


def load(generator: "Generator") -> Digits:
    """Return scikit-learn's digits, split and with noise on the validation images."""
    images, labels = _read()
    order = torch.randperm(len(labels), generator=generator)
    training, validation = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:].repeat(VALIDATION_COPIES)
    return Digits(
        training=Split(images[training], labels[training]),
        validation=Split(_noisy(images[validation], generator), labels[validation]),
    )


def batches(split: Split, *, size: int, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield one epoch of shuffled batches, each under noise of its own."""
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
