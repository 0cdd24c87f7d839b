from dataclasses import replace

import numpy as np
import pytest

from nissa.diagnostics.blocks import OptionalArray, SampleBlock, StepBlock, sample_blocks, step_blocks
from tests.unit.diagnostics.readings import sample, step

NAN, INF = float("nan"), float("inf")


def test_an_absent_number_and_a_nan_differ() -> None:
    numbers = OptionalArray.of([0.5, NAN, None, INF])
    assert numbers.present.tolist() == [True, True, False, True]
    assert numbers.finite.tolist() == [True, False, False, False]
    assert numbers.nonfinite.tolist() == [False, True, False, True]


def test_a_block_of_steps_has_their_numbers_in_order() -> None:
    steps = [replace(step(loss, 7 + row, missed=row), clip_norm=2.0) for row, loss in enumerate([1.0, None, NAN])]
    block = StepBlock.of(steps)
    assert (len(block), block.steps.tolist(), block.missed.tolist()) == (3, [7, 8, 9], [0, 1, 2])
    assert list(block.finite_losses()) == [(0, 1.0), (1, None), (2, None)]
    assert block.losses.present.tolist() == [True, False, True]
    assert block.clip_norms.values.tolist() == [2.0] * 3
    assert not block.learning_rates.present.any()


def test_a_block_of_samples_has_a_row_per_sample_and_a_column_per_layer() -> None:
    samples = [
        sample(0, a=3.0, b={"norm": 4.0, "zeros": 0.5}),
        sample(1, idle=("c",), missed=2, a={"norm": 1.0, "exploding": 0.5}, b={"norm": 0.0, "nonfinite": 0.1}),
    ]
    block = SampleBlock.of(samples)
    assert block.names == ("a", "b")
    assert block.norm.tolist() == [[3.0, 4.0], [1.0, 0.0]]
    assert block.zero_fraction.tolist() == [[0.0, 0.5], [0.0, 0.0]]
    assert block.moments.count.shape == block.std.shape == (2, 2)
    assert block.nonfinite.tolist() == [[False, False], [False, True]]
    assert block.exploding.tolist() == [[False, False], [True, False]]
    assert list(block.trusted_norms()) == [(0, 5.0), (2, None)]
    assert block.idle == ((), ("c",))
    assert block.weight_norms is None


@pytest.mark.parametrize("statistic", ["norm", "mean", "std", "zero_fraction"])
def test_each_statistic_of_a_block_is_that_of_its_samples(statistic: str) -> None:
    samples = [sample(number, a=1.0 + number, b={"norm": 0.0, "nonfinite": 1.0}) for number in range(3)]
    expected = [getattr(each.moments, statistic) for each in samples]
    np.testing.assert_array_equal(getattr(SampleBlock.of(samples), statistic), expected)


def test_without_any_gradient_there_is_no_norm_and_no_score() -> None:
    block = SampleBlock.of([sample()])
    assert (block.norm.shape, block.layers.tolist()) == ((1, 0), [0])
    assert not block.global_norm.present.any()
    assert not block.score.present.any()


def test_a_sequence_is_split_where_the_watch_or_its_layers_change() -> None:
    steps = [step(1.0, 0), step(1.0, 1), step(1.0, 0, model="critic"), step(1.0, 2)]
    assert [(block.model_name, len(block)) for block in step_blocks(steps)] == [(None, 2), ("critic", 1), (None, 1)]
    samples = [sample(0, a=1.0), sample(1, a=1.0), sample(2, a=1.0, b=1.0), sample(3, a={"weight": 1.0}, b=1.0)]
    assert [(block.names, len(block)) for block in sample_blocks(samples)] == [
        (("a",), 2),
        (("a", "b"), 1),
        (("a", "b"), 1),
    ]


def test_what_does_not_belong_together_is_no_block() -> None:
    with pytest.raises(ValueError, match="at least one entry"):
        StepBlock.of([])
    with pytest.raises(ValueError, match="belong together"):
        StepBlock.of([step(1.0), step(1.0, model="critic")])
    with pytest.raises(ValueError, match="belong together"):
        SampleBlock.of([sample(a=1.0), sample(b=1.0)])
