import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nissa.kernels.moments import BucketRange, Layout, Moments, Thresholds, decode
from nissa.kernels.reference import measure

PROBABILITIES = [0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
covered = st.floats(2.0**-8, 2.0**8, exclude_min=True)


def moments_of(values: list[float], span: BucketRange | None) -> Moments:
    packed = measure([torch.tensor(values, dtype=torch.float64)], Layout(span), Thresholds())
    return decode(packed.numpy(), Layout(span))


@given(
    st.lists(covered | covered.map(lambda value: -value) | st.just(0.0), min_size=1, max_size=60),
    st.sampled_from(PROBABILITIES) | st.floats(0, 1),
    st.integers(-2, 8),
)
def test_a_quantile_is_the_order_statistic_to_within_its_bucket(values: list[float], q: float, scale: int) -> None:
    found = moments_of(values, BucketRange(scale, -8, 8)).quantile(q)
    expected = np.quantile(np.abs(values), q, method="inverted_cdf")
    gamma = 2.0 ** (2.0**-scale)
    np.testing.assert_allclose(found, [expected], rtol=(gamma - 1) / (gamma + 1) + 1e-12)


@given(st.lists(st.floats(2.0**8, 2.0**12), min_size=1), st.sampled_from(PROBABILITIES))
def test_a_quantile_in_the_overflow_lies_between_its_bound_and_the_largest(values: list[float], q: float) -> None:
    found = moments_of(values, BucketRange(3, -8, 7)).quantile(q)[0]
    assert 2.0**7 < found <= max(values)


def test_a_quantile_in_the_underflow_is_its_upper_bound_and_not_zero() -> None:
    values = [1e-9, 2e-9, 1.0, 1.0]
    assert moments_of(values, BucketRange(3, -8, 8)).quantile(0.25).tolist() == [2.0**-8]
    assert moments_of(values[:2], BucketRange(3, -8, 8)).quantile(0.5).tolist() == [2e-9]


def test_zeros_are_exact_and_so_is_the_largest() -> None:
    moments = moments_of([0.0, 0.0, -0.0, 0.7], BucketRange())
    assert [float(moments.quantile(q)[0]) for q in (0.0, 0.5, 0.75, 0.76, 1.0)] == [0.0, 0.0, 0.0, 0.7, 0.7]


def test_a_quantile_never_exceeds_the_largest() -> None:
    moments = moments_of([1.01] * 10, BucketRange(-2, -8, 8))
    assert moments.quantile(0.5)[0] <= 1.01


def test_a_huge_largest_does_not_overflow() -> None:
    assert np.isfinite(moments_of([1e308, 1.7e308, 1.7e308], BucketRange()).quantile(0.5)).all()


@pytest.mark.parametrize("values", [[], [float("nan"), float("inf")]])
def test_there_is_no_quantile_without_finite_elements(values: list[float]) -> None:
    assert np.isnan(moments_of(values, BucketRange()).quantile(0.5)).all()


def test_there_is_no_quantile_without_buckets() -> None:
    assert np.isnan(moments_of([1.0], None).quantile(0.5)).all()


def test_nonfinite_elements_do_not_move_a_quantile() -> None:
    assert (
        moments_of([1.0, float("inf"), float("nan"), 1.0], BucketRange()).quantile(0.5).tolist()
        == moments_of([1.0, 1.0], BucketRange()).quantile(0.5).tolist()
    )


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_and_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        moments_of([1.0], BucketRange()).quantile(q)


def test_several_quantiles_are_those_one_by_one() -> None:
    moments = moments_of([0.0, 1e-30, 0.3, 5.0, 1e30, 7.0], BucketRange(3, -8, 8))
    asked = [0.0, 0.5, 0.9, 1.0]
    np.testing.assert_array_equal(moments.quantile(asked), [moments.quantile(q) for q in asked])
    assert moments.quantile([]).shape == (0, 1)
