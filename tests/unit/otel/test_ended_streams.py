"""Streams of parameters that have left the network: told once more, then gone; and those that come back."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nissa.kernels.moments import BucketRange
from nissa.otel.metrics.store import MOST_ENDED, MagnitudeStream
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.otel.metrics.store import MetricStore
    from tests.unit.otel.conftest import Produced

Make = Callable[..., "Produced"]
MakeReader = Callable[[], InMemoryMetricReader]

START = 1_700_000_000_000_000_000
RANGE = BucketRange(0, -8, 8)
NAME = {"nissa.parameter.name": "w"}
BOTH = ("nissa.gradient.magnitude", "nissa.gradient.nonfinite")


def grow(store: "MetricStore", count: int = 1, start: int = START) -> None:
    def make() -> MagnitudeStream:
        return MagnitudeStream(NAME, start, RANGE, np.zeros(RANGE.size + 2, dtype=np.int64))

    store.magnitude(metric.GRADIENT_MAGNITUDE, NAME, make).counts[1] += count
    store.add(metric.GRADIENT_NONFINITE, NAME, count, start=start)


def end(store: "MetricStore", at: int) -> None:
    for spec in (metric.GRADIENT_MAGNITUDE, metric.GRADIENT_NONFINITE):
        store.end(spec, NAME, at)


def told(here: "Produced", reader: int, name: str) -> list[tuple[int, int, int]]:
    """Return start, time and count of each point."""
    found = here.collect(reader).get(name)
    points: list[Any] = list(found.data.data_points) if found else []
    return [(p.start_time_unix_nano, p.time_unix_nano, p.count if hasattr(p, "count") else p.value) for p in points]


@pytest.mark.parametrize("name", BOTH)
def test_each_reader_is_told_once_more_and_then_never_again(
    make_produced: Make, make_delta_reader: MakeReader, name: str
) -> None:
    here = make_produced(InMemoryMetricReader(), make_delta_reader())
    for reader in range(2):
        here.collect(reader)
    grow(here.store, 3)
    end(here.store, START + 10)
    for reader in range(2):
        ((start, _, count),) = told(here, reader, name)
        assert (start, count) == (START, 3)
    assert [told(here, reader, name) for reader in range(2)] == [[], []]
    assert not here.store.ended


def test_a_stream_is_kept_until_the_slowest_reader_was_there(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(), InMemoryMetricReader())
    grow(here.store)
    end(here.store, START + 10)
    here.collect(0)
    assert here.store.ended
    assert len(told(here, 1, BOTH[0])) == 1
    assert not here.store.ended


@pytest.mark.parametrize("name", BOTH)
def test_a_stream_that_comes_back_is_another_one_that_began_later(make_produced: Make, name: str) -> None:
    here = make_produced(InMemoryMetricReader())
    grow(here.store, 3)
    end(here.store, START + 10)
    grow(here.store, 2, start=START + 20)
    first, second = told(here, 0, name)
    assert first == (START, START + 10, 3)
    assert (second[0], second[2]) == (START + 20, 2)
    assert second[1] > first[1]
    ((start, _, count),) = told(here, 0, name)
    assert (start, count) == (START + 20, 2)


@pytest.mark.parametrize("name", BOTH)
def test_differences_of_a_stream_that_comes_back_add_up(
    make_produced: Make, make_delta_reader: MakeReader, name: str
) -> None:
    here = make_produced(make_delta_reader(), make_delta_reader())
    grow(here.store, 5)
    assert [count for *_, count in told(here, 0, name)] == [5]
    end(here.store, START + 10)
    grow(here.store, 2, start=START + 20)
    assert [count for *_, count in told(here, 0, name)] == [0, 2]
    grow(here.store, 1)
    assert [count for *_, count in told(here, 0, name)] == [1]
    assert [count for *_, count in told(here, 1, name)] == [5, 3]


def test_times_never_go_back_for_a_reader(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    grow(here.store)
    ((_, before, _),) = told(here, 0, BOTH[0])
    end(here.store, START + 10)
    ((_, last, _),) = told(here, 0, BOTH[0])
    assert last > before


def test_ending_what_does_not_exist_does_nothing(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    end(here.store, START)
    assert not here.store.ended


def test_a_reader_that_comes_late_is_not_told_of_what_ended_before(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    grow(here.store)
    end(here.store, START + 10)
    late = InMemoryMetricReader()
    here.meter.add_metric_reader(late)
    here.readers = (*here.readers, late)
    assert told(here, 1, BOTH[0]) == []
    assert len(told(here, 0, BOTH[0])) == 1


def test_what_ended_is_bounded_where_a_reader_never_comes(make_produced: Make, make_delta_reader: MakeReader) -> None:
    here = make_produced(make_delta_reader())
    grow(here.store, 7)
    assert [count for *_, count in told(here, 0, BOTH[0])] == [7]
    end(here.store, START + 1)
    for step in range(MOST_ENDED):
        grow(here.store, start=START + step + 1)
        end(here.store, START + step + 2)
    assert len(here.store.ended) == MOST_ENDED
    grow(here.store, 4, start=START + MOST_ENDED + 50)
    assert all(count >= 0 for *_, count in told(here, 0, BOTH[0]))


def test_an_ended_stream_keeps_no_counts_of_others_alive(make_produced: Make) -> None:
    store = make_produced().store
    together = np.zeros((100, RANGE.size + 2), dtype=np.int64)
    store.magnitude(metric.GRADIENT_MAGNITUDE, NAME, lambda: MagnitudeStream(NAME, START, RANGE, together[3]))
    store.end(metric.GRADIENT_MAGNITUDE, NAME, START + 1)
    ((_, _, stream, _),) = store.ended
    assert isinstance(stream, MagnitudeStream)
    assert not np.shares_memory(stream.counts, together)
