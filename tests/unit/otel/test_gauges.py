"""Gauge points per reader: complete while there is room, thinned evenly where there is not."""

import gc
import math
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nissa.otel.metrics.gauges import GaugeLog, GaugePoint, GaugeRow, GaugeSeries
from nissa.otel.metrics.points import GaugePoints
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = [{"nissa.parameter.name": name} for name in "abc"]


class Reader:
    """Anything that can be referenced weakly."""


def times(rows: "Sequence[GaugeRow | GaugePoint | GaugeSeries]") -> list[int]:
    """The time of each row or point."""
    found = [point for row in rows for point in ([(None, row.time, 0)] if isinstance(row, GaugeRow) else row.points())]
    return [time for _, time, _ in found]


def lone(log: GaugeLog, time: int, value: float = 1.0, group: str = "g") -> None:
    log.add(metric.LOSS, group, ({},), time, (value,))


def attached(log: GaugeLog) -> Reader:
    reader = Reader()
    log.attach(reader)
    return reader


def test_every_reader_gets_every_point_once() -> None:
    log = GaugeLog(100)
    first, second = attached(log), attached(log)
    for time in range(5):
        lone(log, time)
    assert times(log.take(first)[metric.LOSS, "g"]) == [0, 1, 2, 3, 4]
    lone(log, 5)
    assert times(log.take(first)[metric.LOSS, "g"]) == [5]
    assert times(log.take(second)[metric.LOSS, "g"]) == [0, 1, 2, 3, 4, 5]
    assert log.take(first) == {}


def test_a_reader_that_comes_late_begins_with_the_present() -> None:
    log = GaugeLog(100)
    for time in range(3):
        lone(log, time)
    late = attached(log)
    lone(log, 3)
    assert times(log.take(late)[metric.LOSS, "g"]) == [2, 3]


def test_attaching_twice_changes_nothing() -> None:
    log = GaugeLog(100)
    reader = attached(log)
    lone(log, 0)
    log.attach(reader)
    assert times(log.take(reader)[metric.LOSS, "g"]) == [0]


def test_a_reader_that_is_gone_is_forgotten() -> None:
    log = GaugeLog(100)
    reader = attached(log)
    del reader
    gc.collect()
    lone(log, 0)
    assert not log._readers


def test_nan_is_absent_among_statistics() -> None:
    row = GaugeRow(ROWS, 7, np.array([1.0, math.nan, 3.0]))
    assert [(point["nissa.parameter.name"], time, value) for point, time, value in row.points()] == [
        ("a", 7, 1.0),
        ("c", 7, 3.0),
    ]


def test_nan_is_absent_among_the_statistics_of_a_network_with_one_parameter() -> None:
    assert list(GaugeRow(ROWS[:1], 7, np.array([math.nan])).points()) == []


def test_a_lone_nan_and_infinity_are_findings() -> None:
    ((_, _, value),) = GaugeRow(({},), 7, (math.nan,)).points()
    assert math.isnan(value)
    ((_, _, value),) = GaugeRow(({},), 7, (-math.inf,)).points()
    assert value == -math.inf


def test_infinity_among_statistics_is_kept() -> None:
    assert [value for _, _, value in GaugeRow(ROWS, 0, np.array([math.inf, 1.0, math.nan])).points()] == [math.inf, 1.0]


def test_values_are_python_floats() -> None:
    values = [value for _, _, value in GaugeRow(ROWS, 0, np.array([1, 2, 3], dtype=np.float64)).points()]
    assert [type(value) for value in values] == [float, float, float]
    assert [type(value) for _, _, value in GaugeRow(({},), 0, (3,)).points()] == [float]


def test_a_group_with_too_many_points_is_thinned_evenly_and_keeps_the_newest() -> None:
    log = GaugeLog(10)
    reader = attached(log)
    for time in range(1000):
        lone(log, time)
    kept = times(log.take(reader)[metric.LOSS, "g"])
    assert len(kept) <= 10
    assert kept[0] == 0
    assert kept[-1] == 999
    assert len({after - before for before, after in pairwise(kept[:-1])}) == 1


def test_a_busy_group_does_not_push_out_a_quiet_one() -> None:
    log = GaugeLog(20)
    reader = attached(log)
    for time in range(500):
        lone(log, time, group="busy")
        if time % 100 == 0:
            lone(log, time, group="quiet")
    taken = log.take(reader)
    assert times(taken[metric.LOSS, "quiet"]) == [0, 100, 200, 300, 400]
    assert times(taken[metric.LOSS, "busy"])[-1] == 499


def test_thinning_begins_anew_after_each_collection() -> None:
    log = GaugeLog(4)
    reader = attached(log)
    for time in range(100):
        lone(log, time)
    log.take(reader)
    for time in range(4):
        lone(log, time)
    assert times(log.take(reader)[metric.LOSS, "g"]) == [0, 1, 2, 3]


def test_the_newest_row_of_each_group_is_there_for_readers_that_show_the_present() -> None:
    log = GaugeLog(10)
    for time in range(3):
        lone(log, time)
    lone(log, 9, group="h")
    assert {key[1]: times(rows) for key, rows in log.newest().items()} == {"g": [2], "h": [9]}


def test_streams_that_end_leave_the_present_but_not_what_was_not_collected() -> None:
    log = GaugeLog(10)
    reader = attached(log)
    lone(log, 0)
    lone(log, 0, group="h")
    log.end("g")
    assert [key[1] for key in log.newest()] == ["h"]
    assert sorted(key[1] for key in log.take(reader)) == ["g", "h"]


def test_streams_that_ended_give_way_first_so_that_a_changing_network_stays_bounded() -> None:
    log = GaugeLog(12)
    reader = attached(log)
    for generation in range(200):
        log.add(metric.GRADIENT_NORM, generation, ROWS, generation, np.ones(3))
        log.end(generation - 1)
    taken = log.take(reader)
    assert sum(len(rows) for rows in taken.values()) * 3 <= 12
    assert (metric.GRADIENT_NORM, 199) in taken


def test_a_group_that_comes_back_counts_as_live_again() -> None:
    log = GaugeLog(3)
    reader = attached(log)
    lone(log, 0)
    log.end("g")
    lone(log, 1)
    for time in range(10):
        lone(log, time, group="h")
    assert times(log.take(reader)[metric.LOSS, "g"])[-1] == 1


@given(
    most=st.integers(1, 200),
    adds=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=400),
)
def test_points_are_bounded_and_each_group_keeps_its_newest(most: int, adds: list[tuple[int, int]]) -> None:
    log = GaugeLog(most)
    reader = attached(log)
    newest: dict[int, int] = {}
    widths = dict(adds)
    for time, (group, _) in enumerate(adds):
        width = widths[group]
        log.add(metric.GRADIENT_NORM, group, [{"n": n} for n in range(width)], time, np.ones(width))
        newest[group] = time
        pool = log._buffers()[0].rows
        counted = sum(each.size() for each in pool.groups.values())
        assert pool.points == counted
        assert counted <= max(most, 2 * sum(widths[each] for each in newest))
    taken = log.take(reader)
    assert {group: times(rows)[-1] for (_, group), rows in taken.items()} == newest
    for rows in taken.values():
        assert times(rows) == sorted(set(times(rows)))


def test_rows_of_many_streams_give_way_before_a_lone_stream_loses_a_point() -> None:
    log = GaugeLog(200)
    reader = attached(log)
    wide = [{"nissa.parameter.name": str(number)} for number in range(20)]
    for time in range(100):
        lone(log, time)
        log.add(metric.GRADIENT_NORM, "w", wide, time, np.ones(20))
    taken = log.take(reader)
    assert times(taken[metric.LOSS, "g"]) == list(range(100))
    kept = times(taken[metric.GRADIENT_NORM, "w"])
    assert (kept[0], kept[-1]) == (0, 99)
    assert 3 <= len(kept) <= 5


def alone(log: GaugeLog, time: int, value: float = 1.0, group: str = "g") -> bool:
    return log.add_point(metric.LOSS, group, {}, time, value)


def test_parameters_never_thin_out_the_points_of_the_step_itself() -> None:
    log = GaugeLog(12, 1_000)
    reader = attached(log)
    for time in range(1_000):
        assert not alone(log, time)
        log.add(metric.GRADIENT_NORM, "w", ROWS, time, np.ones(3))
    taken = log.take(reader)
    assert times(taken[metric.LOSS, "g"]) == list(range(1_000))
    assert len(times(taken[metric.GRADIENT_NORM, "w"])) <= 4


def test_points_of_steps_do_not_thin_out_parameters() -> None:
    log = GaugeLog(30, 10)
    reader = attached(log)
    for time in range(10):
        log.add(metric.GRADIENT_NORM, "w", ROWS, time, np.ones(3))
    for time in range(1_000):
        alone(log, time)
    assert times(log.take(reader)[metric.GRADIENT_NORM, "w"]) == list(range(10))


@given(most=st.integers(1, 60), groups=st.lists(st.integers(0, 4), min_size=1, max_size=400))
def test_points_of_lone_streams_are_bounded_evenly_spaced_and_end_with_the_newest(most: int, groups: list[int]) -> None:
    log = GaugeLog(1, most)
    reader = attached(log)
    newest: dict[int, int] = {}
    seen: dict[int, list[int]] = {}
    thinned = False
    for time, group in enumerate(groups):
        thinned |= log.add_point(metric.LOSS, group, {"n": group}, time, float(time))
        newest[group] = time
        seen.setdefault(group, []).append(time)
        pool = log._buffers()[0].alone
        assert pool.points == sum(each.size() for each in pool.groups.values())
        assert pool.points <= max(most, 2 * len(newest))
    taken = log.take(reader)
    assert {group: times(rows)[-1] for (_, group), rows in taken.items()} == newest
    assert thinned or {group: times(rows) for (_, group), rows in taken.items()} == seen
    for (_, group), rows in taken.items():
        places = [seen[group].index(time) for time in times(rows)]
        assert places[0] == 0
        assert len({after - before for before, after in pairwise(places[:-1])}) <= 1


def test_a_lone_stream_is_told_point_by_point_like_rows_of_one_stream() -> None:
    rows, points = GaugeLog(100), GaugeLog(100)
    readers = attached(rows), attached(points)
    values = [1, 0.5, math.nan, -math.inf, 2**40]
    for time, value in enumerate(values):
        rows.add(metric.LOSS, "g", ({"a": 1},), time, (value,))
        points.add_point(metric.LOSS, "g", {"a": 1}, time, value)
    (expected,), (found,) = (log.take(reader).values() for log, reader in zip((rows, points), readers, strict=True))
    assert [repr(each) for each in GaugePoints(found)] == [repr(each) for each in GaugePoints(expected)]
    assert len(GaugePoints(found)) == len(GaugePoints(expected)) == 5
    assert repr(GaugePoints(found)[-1]) == repr(GaugePoints(expected)[-1])
    assert [[*each.points()] for (each,) in points.newest().values()] == [[({"a": 1}, 4, 2.0**40)]]


def test_groups_are_given_in_the_order_in_which_they_began() -> None:
    log = GaugeLog(100)
    reader = attached(log)
    alone(log, 0, group="first")
    lone(log, 0, group="second")
    alone(log, 0, group="third")
    assert [key[1] for key in log.take(reader)] == ["first", "second", "third"]


def test_a_reader_that_comes_late_begins_with_the_present_of_lone_streams_too() -> None:
    log = GaugeLog(100)
    for time in range(3):
        alone(log, time)
    assert times(log.take(attached(log))[metric.LOSS, "g"]) == [2]


def test_points_of_a_lone_stream_take_a_few_bytes_each() -> None:
    log = GaugeLog(100)
    _reader = attached(log)
    for time in range(10_000):
        alone(log, time)
    (points,) = log._buffers()[0].alone.groups.values()
    assert sys.getsizeof(points.times) + sys.getsizeof(points.values) < 20 * 10_000
