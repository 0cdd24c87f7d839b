"""Gauge points per reader: complete while there is room, thinned evenly where there is not."""

import gc
import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nissa.backends.otel.gauges import GaugeLog, Row
from nissa.semconv import metrics as metric

ROWS = [{"nissa.parameter.name": name} for name in "abc"]


class Reader:
    """Anything that can be referenced weakly."""


def times(rows: list[Row]) -> list[int]:
    return [row.time for row in rows]


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
    row = Row(ROWS, 7, np.array([1.0, math.nan, 3.0]))
    assert [(point["nissa.parameter.name"], time, value) for point, time, value in row.points()] == [
        ("a", 7, 1.0),
        ("c", 7, 3.0),
    ]


def test_nan_is_absent_among_the_statistics_of_a_network_with_one_parameter() -> None:
    assert list(Row(ROWS[:1], 7, np.array([math.nan])).points()) == []


def test_a_lone_nan_and_infinity_are_findings() -> None:
    ((_, _, value),) = Row(({},), 7, (math.nan,)).points()
    assert math.isnan(value)
    ((_, _, value),) = Row(({},), 7, (-math.inf,)).points()
    assert value == -math.inf


def test_infinity_among_statistics_is_kept() -> None:
    assert [value for _, _, value in Row(ROWS, 0, np.array([math.inf, 1.0, math.nan])).points()] == [math.inf, 1.0]


def test_values_are_python_floats() -> None:
    values = [value for _, _, value in Row(ROWS, 0, np.array([1, 2, 3], dtype=np.float64)).points()]
    assert [type(value) for value in values] == [float, float, float]
    assert [type(value) for _, _, value in Row(({},), 0, (3,)).points()] == [float]


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
        counted = sum(each.size() for each in log._readers[reader].groups.values())
        assert log._readers[reader].points == counted
        assert counted <= max(most, 2 * sum(widths[each] for each in newest))
    taken = log.take(reader)
    assert {group: rows[-1].time for (_, group), rows in taken.items()} == newest
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
