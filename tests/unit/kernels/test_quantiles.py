import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nissa.kernels.buckets import FULL_RANGE
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


@pytest.mark.parametrize("values", [[1e-9, 2e-9, 1.0, 1.0], [300.0, 400.0, 5000.0, 5000.0]])
def test_a_quantile_outside_all_buckets_is_absent(values: list[float]) -> None:
    found = moments_of(values, BucketRange(3, -8, 8)).quantile([0.25, 1.0])[:, 0]
    np.testing.assert_array_equal(found, [np.nan, max(values)])


def test_a_quantile_in_the_overflow_is_bounded_by_a_largest_element_close_to_it() -> None:
    found = moments_of([300.0, 310.0], BucketRange(3, -8, 8)).quantile(0.5)[0]
    assert found == pytest.approx(2 * 256 * 310 / (256 + 310))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.8e11, torch.float32),
        (3e38, torch.float32),
        (1.8e11, torch.bfloat16),
        (1e-45, torch.float32),
        (3e-41, torch.float32),
        (1e-20, torch.float32),
        (1e-39, torch.bfloat16),
        (1e-45, torch.float64),
        (6e-8, torch.float16),
        (65504.0, torch.float16),
    ],
)
def test_a_quantile_holds_in_the_whole_range_of_float32(value: float, dtype: torch.dtype) -> None:
    held = torch.tensor([value, -value, value, 3.4e38 if dtype != torch.float16 else 65504.0]).to(dtype)
    moments = decode(measure([held], Layout(), Thresholds()).numpy(), Layout())
    assert moments.underflow.tolist() == moments.overflow.tolist() == [0]
    np.testing.assert_allclose(moments.quantile(0.5), float(held[0]), rtol=1 / 3 + 1e-9)


@given(
    st.lists(st.floats(2.0**-149, 2.0**128, exclude_max=True), min_size=1, max_size=60),
    st.sampled_from(PROBABILITIES),
)
def test_any_quantile_is_within_an_octave(values: list[float], q: float) -> None:
    expected = np.quantile(values, q, method="inverted_cdf")
    np.testing.assert_allclose(moments_of(values, FULL_RANGE).quantile(q), [expected], rtol=1 / 3 + 1e-9)


@pytest.mark.parametrize("value", [1e-300, 1e300, 1e200, 5e-324])
def test_a_quantile_in_a_bucket_of_16_octaves_is_absent(value: float) -> None:
    assert np.isnan(moments_of([value, value, 1.7e308], FULL_RANGE).quantile(0.5)).all()


def test_zeros_are_exact_and_so_is_the_largest() -> None:
    moments = moments_of([0.0, 0.0, -0.0, 0.7], BucketRange())
    assert [float(moments.quantile(q)[0]) for q in (0.0, 0.5, 0.75, 0.76, 1.0)] == [0.0, 0.0, 0.0, 0.7, 0.7]


def test_a_quantile_never_exceeds_the_largest() -> None:
    moments = moments_of([1.01] * 10, BucketRange(-2, -8, 8))
    assert moments.quantile(0.5)[0] <= 1.01


def test_a_huge_largest_does_not_overflow() -> None:
    assert np.isnan(moments_of([1e308, 1.6e308, 1.7e308], BucketRange()).quantile(0.5)).all()
    assert np.isfinite(moments_of([1e308, 1.6e308, 1.7e308], BucketRange(0, 1, 1023)).quantile(0.5)).all()


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
