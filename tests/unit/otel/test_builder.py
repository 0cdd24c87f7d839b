"""Totals and differences of every kind, for several readers at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
)

from nissa.events import SpanIds
from nissa.kernels.moments import BucketRange
from nissa.otel.metrics.store import MagnitudeStream, Sample
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.otel.metrics.store import MetricStore
    from tests.unit.otel.conftest import Produced

Make = Callable[..., "Produced"]
MakeReader = Callable[[], InMemoryMetricReader]

START = 1_700_000_000_000_000_000
DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
RANGE = BucketRange(0, -8, 8)


def point_of(found: Any) -> Any:
    (point,) = found.data.data_points
    return point


def magnitude(store: "MetricStore", slot: int, *, zeros: int = 0, name: str = "w", start: int = START) -> None:
    attributes = {"nissa.parameter.name": name}
    stream = store.magnitude(
        metric.GRADIENT_MAGNITUDE,
        attributes,
        lambda: MagnitudeStream(attributes, start, RANGE, np.zeros(RANGE.size + 2, dtype=np.int64)),
    )
    stream.counts[slot] += 1
    stream.zeros += zeros
    stream.total += 1.5
    stream.maximum = max(stream.maximum or 0.0, 1.5)


def test_sums_are_totals_since_the_run_began(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    for expected in (2, 4):
        here.store.add(metric.SEED_TRANSITIONS, {"nissa.seed.from": "a"}, 2)
        found = here.collect()["nissa.seed.transitions"]
        assert found.data.aggregation_temporality == CUMULATIVE
        assert found.data.is_monotonic
        assert point_of(found).value == expected
        assert point_of(found).start_time_unix_nano == START


def test_the_order_of_attributes_does_not_matter(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_TRANSITIONS, {"a": 1, "b": 2})
    here.store.add(metric.SEED_TRANSITIONS, {"b": 2, "a": 1})
    assert point_of(here.collect()["nissa.seed.transitions"]).value == 2


def test_differences_of_sums_are_contiguous_and_add_up(make_produced: Make, make_delta_reader: MakeReader) -> None:
    here = make_produced(make_delta_reader())
    points = []
    for amount in (3, 0, 4):
        here.store.add(metric.SEED_TRANSITIONS, {}, amount)
        found = here.collect()["nissa.seed.transitions"]
        assert found.data.aggregation_temporality == DELTA
        points.append(point_of(found))
    assert [point.value for point in points] == [3, 0, 4]
    assert points[0].start_time_unix_nano == START
    assert [each.start_time_unix_nano for each in points[1:]] == [each.time_unix_nano for each in points[:-1]]


def test_an_up_down_counter_may_fall_and_is_not_monotonic(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_COUNT, {}, 1)
    here.store.add(metric.SEED_COUNT, {}, -3)
    found = here.collect()["nissa.seed.count"]
    assert not found.data.is_monotonic
    assert point_of(found).value == -2


def test_readers_are_told_apart(make_produced: Make, make_delta_reader: MakeReader) -> None:
    here = make_produced(InMemoryMetricReader(), make_delta_reader(), make_delta_reader())
    here.store.add(metric.SEED_TRANSITIONS, {}, 3)
    assert [point_of(here.collect(each)["nissa.seed.transitions"]).value for each in (0, 1)] == [3, 3]
    here.store.add(metric.SEED_TRANSITIONS, {}, 4)
    assert [point_of(here.collect(each)["nissa.seed.transitions"]).value for each in (0, 1, 2)] == [7, 4, 7]


def test_a_reader_may_want_only_some_kinds_as_differences(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(preferred_temporality={Counter: DELTA}))
    here.store.add(metric.SEED_TRANSITIONS, {})
    here.store.add(metric.SEED_COUNT, {})
    here.store.observe(metric.STEP_DURATION, {}, 0.5)
    magnitude(here.store, 1)
    found = {name: each.data.aggregation_temporality for name, each in here.collect().items()}
    assert found == {
        "nissa.seed.transitions": DELTA,
        "nissa.seed.count": CUMULATIVE,
        "nissa.step.duration": CUMULATIVE,
        "nissa.gradient.magnitude": CUMULATIVE,
    }


def test_an_explicit_histogram_counts_upper_bounds_in(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    for value in (0.0005, 0.001, 0.00100001, 60.0, 61.0):
        here.store.observe(metric.STEP_DURATION, {}, value)
    point = point_of(here.collect()["nissa.step.duration"])
    assert list(point.explicit_bounds) == list(metric.STEP_DURATION.bounds)
    assert [point.bucket_counts[0], point.bucket_counts[1], *point.bucket_counts[-2:]] == [2, 1, 1, 1]
    assert point.count == sum(point.bucket_counts) == 5
    assert point.sum == pytest.approx(121.00250001)
    assert (point.min, point.max) == (0.0005, 61.0)


def test_differences_of_histograms_have_no_extremes(make_produced: Make, make_delta_reader: MakeReader) -> None:
    here = make_produced(make_delta_reader())
    points = []
    for value in (0.5, 2.0):
        here.store.observe(metric.STEP_DURATION, {}, value)
        points.append(point_of(here.collect()["nissa.step.duration"]))
    assert [point.count for point in points] == [1, 1]
    assert [point.sum for point in points] == [0.5, 2.0]
    assert [(point.min, point.max) for point in points] == [(None, None)] * 2
    assert points[1].start_time_unix_nano == points[0].time_unix_nano


@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, RANGE.size + 1), st.integers(0, 3)), max_size=8), min_size=1, max_size=6
    )
)
def test_exponential_differences_are_contiguous_and_add_up_to_the_total(
    make_produced: Make, make_delta_reader: MakeReader, steps: list[list[tuple[int, int]]]
) -> None:
    here = make_produced(make_delta_reader(), InMemoryMetricReader())
    buckets: dict[int, int] = {}
    count = zero = 0
    end = START
    total = None
    for step in [[(1, 0)], *steps]:
        for slot, zeros in step:
            magnitude(here.store, slot, zeros=zeros)
        part = point_of(here.collect(0)["nissa.gradient.magnitude"])
        total = point_of(here.collect(1)["nissa.gradient.magnitude"])
        for point in (part, total):
            assert point.count == point.zero_count + sum(point.positive.bucket_counts)
        assert part.start_time_unix_nano == end
        assert total.start_time_unix_nano == START
        end, count, zero = part.time_unix_nano, count + part.count, zero + part.zero_count
        for index, number in enumerate(part.positive.bucket_counts):
            buckets[part.positive.offset + index] = buckets.get(part.positive.offset + index, 0) + number
    assert total is not None
    assert (count, zero) == (total.count, total.zero_count)
    seen = {total.positive.offset + index: each for index, each in enumerate(total.positive.bucket_counts) if each}
    assert {index: each for index, each in buckets.items() if each} == seen


def test_an_exponential_histogram_is_never_wider_than_the_bound(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(), most_buckets=5)
    for slot in range(RANGE.size + 2):
        magnitude(here.store, slot)
    point = point_of(here.collect()["nissa.gradient.magnitude"])
    assert len(point.positive.bucket_counts) <= 5
    assert point.scale == -3
    assert point.max == 1.5
    assert point.min is None


def test_gauge_points_carry_their_own_time_and_no_start(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.gauge(metric.LOSS, {}, 123, 1.0)
    here.store.gauge(metric.LOSS, {}, 456, None)
    point = point_of(here.collect()["nissa.loss"])
    assert (point.time_unix_nano, point.start_time_unix_nano) == (123, None)


def test_a_gauge_is_exported_once(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.gauge(metric.LOSS, {}, 123, 1.0)
    assert list(here.collect()) == ["nissa.loss"]
    assert here.collect() == {}


def test_an_exemplar_goes_with_the_interval_it_fell_into(make_produced: Make, make_delta_reader: MakeReader) -> None:
    here = make_produced(make_delta_reader(), InMemoryMetricReader())
    sample = Sample(0.5, START + 5, SpanIds(0xA, 0xB))
    here.store.observe(metric.STEP_DURATION, {}, 0.5, sample=sample)
    for reader in (0, 1):
        (exemplar,) = point_of(here.collect(reader)["nissa.step.duration"]).exemplars
        assert (exemplar.value, exemplar.time_unix_nano) == (0.5, START + 5)
        assert (exemplar.trace_id, exemplar.span_id) == (0xA, 0xB)
    here.store.observe(metric.STEP_DURATION, {}, 0.7)
    assert point_of(here.collect(0)["nissa.step.duration"]).exemplars == []
    assert len(point_of(here.collect(1)["nissa.step.duration"]).exemplars) == 1


def test_histograms_of_a_reader_that_wants_differences_of_them_only(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(preferred_temporality={Histogram: DELTA}))
    here.store.add(metric.SEED_TRANSITIONS, {}, 3)
    magnitude(here.store, 1)
    here.collect()
    magnitude(here.store, 2)
    found = here.collect()
    assert point_of(found["nissa.gradient.magnitude"]).count == 1
    assert point_of(found["nissa.seed.transitions"]).value == 3
