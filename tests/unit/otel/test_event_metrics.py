"""Counters that events change, which are exported with the events and again with all other metrics."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.export.metric_reader import TEMPORALITY, ExportReader
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import EVENT_METRICS, Kind
from tests.unit.otel.conftest import nissa_scope

START = 1_700_000_000_000_000_000
SUM, HISTOGRAM = metric.SEED_TRANSITIONS, metric.SEED_LIFESPAN


class Run:
    """A store that exports through the reader of a pipeline."""

    def __init__(self, temporality: str) -> None:
        self.store = MetricStore(START, GaugeLog(1000))
        self.reader = ExportReader(Resource({}), {TEMPORALITY: temporality})
        producer = MetricProducer(self.store, nissa_scope(), most_buckets=160, error_boundary=ErrorBoundary())
        producer.install(None, self.reader)
        self.producer = producer

    def whole(self) -> MetricsData | None:
        """Return what the export thread collects once per interval; the SDK's own instruments have nothing."""
        return self.producer.merge(None, self.reader, Resource({}))


def points(data: MetricsData | None) -> "list[tuple[str, Any]]":
    metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
    return [(found.name, point) for found in metrics for point in found.data.data_points]


def name_of(blueprint: str) -> dict[str, str]:
    return {"nissa.blueprint.id": blueprint}


def test_only_changed_streams_of_events_are_returned_and_each_once() -> None:
    run = Run("cumulative")
    run.store.add(SUM, name_of("a"))
    run.store.add(SUM, name_of("b"))
    run.store.add(metric.ITEMS, {}, 7)
    run.store.gauge(metric.LOSS, {}, START, 0.5)
    assert len(points(run.reader.take_changed())) == 2
    assert run.reader.take_changed() is None
    run.store.add(SUM, name_of("b"))
    ((name, point),) = points(run.reader.take_changed())
    assert (name, dict(point.attributes), point.value) == (SUM.name, name_of("b"), 2)
    run.producer.uninstall()
    run.store.add(SUM, name_of("b"))
    assert run.reader.take_changed() is None


def test_a_metric_of_events_is_a_sum_or_a_histogram() -> None:
    assert {spec.kind for spec in EVENT_METRICS} == {Kind.COUNTER, Kind.UP_DOWN_COUNTER, Kind.HISTOGRAM}


ACTIONS = st.lists(st.sampled_from(["a", "b", "changed", "whole"]), max_size=30)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@given(actions=ACTIONS)
def test_what_both_exports_say_together_is_what_happened(temporality: str, actions: list[str]) -> None:
    run = Run(temporality)
    happened: Counter[str] = Counter()
    told: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for action in [*actions, "whole"]:
        if action in "ab":
            happened[action] += 1
            run.store.add(SUM, name_of(action))
            run.store.observe(HISTOGRAM, name_of(action), 3.0)
            continue
        for name, point in points(run.reader.take_changed() if action == "changed" else run.whole()):
            told[name, point.attributes["nissa.blueprint.id"]].append(point)
    for blueprint, count in happened.items():
        sums, histograms = told[SUM.name, blueprint], told[HISTOGRAM.name, blueprint]
        values, counts = [point.value for point in sums], [point.count for point in histograms]
        assert (
            (sum(values), sum(counts)) == (count, count)
            if temporality == "delta"
            else values[-1] == counts[-1] == count
        )
        times = [point.time_unix_nano for point in sums]
        assert times == sorted(times)
        if temporality == "delta":
            assert [point.start_time_unix_nano for point in sums] == [START, *times[:-1]]
