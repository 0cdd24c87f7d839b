"""The digits are real, noisy where they should be, and drawn from a private generator."""

import sys

import pytest
import torch

from nissa.demo import data
from nissa.demo.data import Digits, batches, load
from nissa.errors import ConfigurationError


def test_every_image_is_either_learned_from_or_validated_on(all_digits: Digits) -> None:
    assert all_digits.training.images.shape == (data.TRAINING_IMAGES, 1, 8, 8)
    assert len(all_digits.validation.labels) == (1797 - data.TRAINING_IMAGES) * data.VALIDATION_COPIES
    assert set(all_digits.training.labels.tolist()) == set(range(data.CLASSES))


def test_training_images_are_clean_and_validation_images_noisy(all_digits: Digits) -> None:
    assert all_digits.training.images.min() == 0.0
    assert all_digits.training.images.max() == 1.0
    assert all_digits.validation.images.min() < -data.NOISE


def test_an_epoch_shows_each_image_as_often_as_it_says(all_digits: Digits) -> None:
    seen = list(batches(all_digits.training, size=64, generator=torch.Generator().manual_seed(0)))
    counts = torch.bincount(torch.cat([labels for _, labels in seen]))
    assert torch.equal(counts, torch.bincount(all_digits.training.labels) * data.PASSES)


def test_the_same_generator_gives_the_same_batches_and_the_global_one_is_left_alone(all_digits: Digits) -> None:
    before = torch.random.get_rng_state()
    first, second = (
        next(batches(all_digits.training, size=64, generator=torch.Generator().manual_seed(5))) for _ in range(2)
    )
    load(torch.Generator().manual_seed(0))

    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nissa\[demo\]'"):
        load(torch.Generator())
