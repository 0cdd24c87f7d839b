"""Figures hold what was measured, and nothing else."""

import base64
from typing import Any

import numpy as np
import pytest

from nissa.charts import Bar, Lane, Mark, Series, gather, heatmap, lines, swimlane
from nissa.charts.distribution import Band, band_chart
from nissa.charts.text import plain, shorten
from nissa.events import Stage

SECOND = 1_000_000_000


def numbers(array: Any) -> list[float]:
    """Return what plotly was given, which it packs."""
    if isinstance(array, dict):
        return [float(each) for each in np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])]
    return [float(each) for each in np.ravel(array)]


def series(values: list[float], *, start: int = 0, name: str = "s", steps: bool = True) -> Series:
    times = (np.arange(len(values), dtype=np.int64) + start) * SECOND
    return Series(name, times, np.array(values), np.arange(len(values), dtype=np.float64) if steps else None)


def test_what_is_not_finite_is_a_gap_and_a_mark() -> None:
    line, mark = lines([series([1.0, np.nan, 3.0, np.inf])]).data
    assert numbers(line.y)[::2] == [1, 3]
    assert np.isnan(numbers(line.y)[1::2]).all()
    assert line.connectgaps is False
    assert list(mark.text) == ["NaN", "∞"]
    assert numbers(mark.x) == [1000, 3000]
    assert mark.meta["step"] == {"x": [1, 3]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.001, 0.001, np.nan], (0.0, 0.002)),
        ([-3.0], (-6.0, 0.0)),
        ([0.0, 0.0], None),
        ([0.001, 0.002], None),
        ([np.nan], None),
    ],
)
def test_an_axis_around_one_value_begins_at_zero(values: list[float], expected: tuple[float, float] | None) -> None:
    assert lines([series(values), series(values[:1], name="other")]).layout.yaxis.range == expected


def test_a_line_can_be_drawn_over_steps_where_they_are_known() -> None:
    known, unknown = lines([series([1.0, 2.0]), series([1.0, 2.0], steps=False)]).data
    assert known.meta["step"] == {"x": [0, 1]}
    assert unknown.meta["step"] == {}


def test_columns_are_the_times_of_measurements_and_what_was_not_measured_is_blank() -> None:
    grid = gather([series([1.0, 2.0, 3.0]), series([5.0], start=1, steps=False)], most_columns=10)
    assert grid.edges.tolist() == [0, SECOND, 2 * SECOND, 3 * SECOND]
    assert np.array_equal(grid.cells, np.array([[1.0, 2.0, 3.0], [np.nan, 5.0, np.nan]]), equal_nan=True)
    assert grid.steps is not None
    assert grid.steps.tolist() == [0, 1, 2, 3]


def test_a_cell_of_several_measurements_shows_the_largest() -> None:
    grid = gather([series([1.0, 9.0, 2.0, np.nan, 4.0, 3.0, 8.0])], most_columns=3)
    assert grid.cells.shape == (1, 3)
    assert np.nanmax(grid.cells) == 9
    assert [grid.cells[0, 0], grid.cells[0, -1]] == [9, 8]


def test_zero_has_a_colour_and_nothing_has_none() -> None:
    (trace,) = heatmap(gather([series([0.0, 1.0, np.nan, 100.0])], most_columns=9), title="norm").data
    cells = numbers(trace.z)
    assert cells[:2] == [-0.5, 0]
    assert np.isnan(cells[2])
    assert cells[3] == 2
    assert trace.meta["floor"] == -0.5


def test_an_empty_bucket_is_blank() -> None:
    band = Band(np.array([0, SECOND]), None, np.array([1.0, 2.0, 4.0]), np.array([[0.0], [1.0]]))
    (trace,) = band_chart(band, title="magnitude").data
    assert np.isnan(numbers(trace.z)[0])
    assert numbers(trace.z)[1] == 1


def lane() -> Lane:
    bars = (
        Bar(Stage.TRAINING, SECOND, 3 * SECOND, 10, 30, tooltip=("training: s",)),
        Bar(Stage.BLENDING, 3 * SECOND, 4 * SECOND, 30, 40, open_end=True),
    )
    marks = (Mark("G1", SECOND, 10, passed=True), Mark("G2", 2 * SECOND, 20, passed=False))
    return Lane("s · conv", "environment 0", bars, marks)


def test_a_life_is_a_row_of_bars_with_marks_above() -> None:
    figure = swimlane([lane(), lane()])
    by_name = {trace.name: trace for trace in figure.data}
    assert set(by_name) == {"training", "blending", "gate passed", "gate not passed", "fate still open"}
    training = by_name["training"]
    assert (numbers(training.base), numbers(training.x)) == ([1000, 1000], [2000, 2000])
    assert training.meta["step"] == {"base": [10, 10], "x": [20, 20]}
    assert list(by_name["gate passed"].y) == [-0.4, 0.6]
    assert numbers(by_name["fate still open"].x) == [4000, 4000]
    assert list(figure.layout.yaxis.ticktext) == ["s · conv", "s · conv"]


def test_names_are_shown_and_not_read_as_markup() -> None:
    name = "<a href='x'>&lt;</a>%{x}"
    (trace,) = lines([series([1.0, 2.0], name=name)]).data
    assert trace.name == plain(name)
    assert "<" not in trace.name
    assert name not in (trace.hovertemplate or "")
    assert trace.meta["label"] == name


@pytest.mark.parametrize(("most", "said"), [(19, "block.layers.0.bias"), (10, "blo…0.bias")])
def test_long_names_lose_their_middle(most: int, said: str) -> None:
    assert shorten("block.layers.0.bias", most) == said
