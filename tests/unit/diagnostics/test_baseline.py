import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.diagnostics.baseline import Baseline, LayerBaseline

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=40), st.integers(2, 12))
def test_what_is_usual_is_the_median_of_the_window_and_the_median_deviation_from_it(
    values: list[float], window: int
) -> None:
    baseline = Baseline(window, warm_up=1)
    for value in values:
        baseline.feed(value)
    kept = np.array(values[-window:])
    center = np.median(kept)
    assert baseline.usual() == pytest.approx((center, 1.4826 * np.median(np.abs(kept - center))))


def test_the_deviation_is_that_of_normal_numbers_and_outliers_do_not_matter() -> None:
    baseline = Baseline(2000, warm_up=10)
    values = np.random.default_rng(0).normal(3.0, 0.5, 2000)
    values[:200] = 1e6
    for value in values:
        baseline.feed(float(value))
    center, deviation = baseline.usual()
    assert center == pytest.approx(3.0, abs=0.1)
    assert deviation == pytest.approx(0.5, rel=0.2)


def test_nothing_is_usual_before_the_warm_up() -> None:
    baseline = Baseline(8, warm_up=3)
    told = []
    for value in range(4):
        baseline.feed(value)
        told.append(baseline.ready)
    assert told == [False, False, True, True]


def test_a_window_shorter_than_the_warm_up_is_warm_when_it_is_full() -> None:
    baseline = Baseline(2, warm_up=10)
    baseline.feed(1)
    assert not baseline.ready
    baseline.feed(1)
    assert baseline.ready


def fed(baseline: LayerBaseline, **values: float) -> None:
    names = tuple(values)
    baseline.feed(names, np.array(list(values.values())), np.ones(len(names), dtype=bool))


def test_layers_have_a_median_each_and_keep_it_while_others_come_and_go() -> None:
    baseline = LayerBaseline(4, warm_up=2)
    fed(baseline, a=1, b=10)
    fed(baseline, b=30, c=7, a=3)
    assert baseline.median(("c", "a", "b")).tolist() == pytest.approx([np.nan, 2, 20], nan_ok=True)
    fed(baseline, b=50)
    assert baseline.median(("a", "b")).tolist() == pytest.approx([np.nan, 30], nan_ok=True)  # a was gone


def test_what_is_not_usable_or_not_finite_is_not_fed() -> None:
    baseline = LayerBaseline(4, warm_up=1)
    baseline.feed(("a", "b", "c"), np.array([1.0, 2.0, np.nan]), np.array([True, False, True]))
    assert baseline.median(("a", "b", "c")).tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)


@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1, max_size=20))
def test_each_layer_is_as_if_it_were_alone(rows: list[list[float]]) -> None:
    together, alone = LayerBaseline(5, warm_up=1), [Baseline(5, warm_up=1) for _ in range(3)]
    for row in rows:
        fed(together, a=row[0], b=row[1], c=row[2])
        for each, value in zip(alone, row, strict=True):
            each.feed(value)
    assert together.median(("a", "b", "c")).tolist() == pytest.approx([each.usual()[0] for each in alone])


def test_numbers_that_were_lost_keep_their_places_and_nothing_is_usual_before_as_many_are_seen_again() -> None:
    baseline = Baseline(8, warm_up=3)
    for value in np.arange(8.0):
        baseline.feed(float(value))
    baseline.lose(2)
    assert sorted(baseline.known) == [2, 3, 4, 5, 6, 7]
    told = []
    for late in (8.0, 9.0):
        told.append((baseline.ready, baseline.settled))
        baseline.feed(late)
    assert told == [(False, False)] * 2
    assert baseline.ready
    assert sorted(baseline.known) == [4, 5, 6, 7, 8, 9]
    assert baseline.usual()[0] == 6.5


def test_after_a_long_loss_everything_is_learnt_anew() -> None:
    baseline = Baseline(8, warm_up=3)
    for value in np.arange(8.0):
        baseline.feed(float(value))
    baseline.lose(10**9)
    told = []
    for late in (50.0, 60.0, 70.0):
        told.append(baseline.ready)
        baseline.feed(late)
    assert (told, baseline.ready, baseline.usual()[0]) == ([False] * 3, True, 60.0)


@given(st.lists(st.one_of(FINITE, st.integers(1, 9)), min_size=1, max_size=30))
def test_layers_lose_as_a_single_number_does(entries: list[float | int]) -> None:
    together, alone = LayerBaseline(5, warm_up=2), Baseline(5, warm_up=2)
    for each in entries:
        if isinstance(each, int):
            together.lose(each)
            alone.lose(each)
        else:
            fed(together, a=each, b=each)
            alone.feed(each)
        assert together.settled == alone.settled
        expected = alone.usual()[0] if alone.ready else np.nan
        assert together.median(("a", "b")).tolist() == pytest.approx([expected] * 2, nan_ok=True)
