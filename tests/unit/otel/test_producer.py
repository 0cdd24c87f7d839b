"""Our metrics in what readers collect, and nothing of the application's lost."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Produced

Make = Callable[..., "Produced"]


class Collector(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        self.batches.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Do nothing."""

    def names(self) -> list[list[str]]:
        return [
            [metric.name for each in batch.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
            for batch in self.batches
        ]


def in_child(work: Callable[[], object]) -> str:
    """Return what a forked child says of the result of some work."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        try:
            os.write(writing, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_it_works_when_nothing_else_was_recorded(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {}, 3)
    (found,) = here.collect().values()
    assert (found.name, found.unit) == ("nissa.seed.unsampled", "{seed}")
    assert found.data.data_points[0].value == 3


def test_nothing_recorded_at_all_is_nothing_exported(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    assert here.readers[0].get_metrics_data() is None


def test_the_application_s_instruments_are_kept(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.meter.get_meter("app").create_counter("requests").add(2)
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.readers[0].get_metrics_data()
    assert sorted(scope.scope.name for scope in data.resource_metrics[0].scope_metrics) == ["app", "nissa"]
    assert len(data.resource_metrics) == 1


def test_other_instruments_of_the_same_scope_are_kept(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.meter.get_meter("nissa", "1.2.3").create_counter("mine").add(1)
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.readers[0].get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    assert [each.name for each in scope.metrics] == ["mine", "nissa.seed.unsampled"]


def test_our_metrics_carry_the_provider_s_resource(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.readers[0].get_metrics_data()
    assert data.resource_metrics[0].resource == here.meter._sdk_config.resource


def test_a_reader_that_is_added_later_works(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.gauge(metric.LOSS, {}, 5, 0.5)
    here.store.add(metric.SEED_UNSAMPLED, {})
    late = InMemoryMetricReader()
    here.meter.add_metric_reader(late)
    here.readers = (*here.readers, late)
    assert sorted(here.collect(1)) == ["nissa.loss", "nissa.seed.unsampled"]
    assert sorted(here.collect(0)) == ["nissa.loss", "nissa.seed.unsampled"]


def test_a_periodic_reader_exports_at_flush_and_once_more_at_shutdown(make_produced: Make) -> None:
    collector = Collector()
    here = make_produced(PeriodicExportingMetricReader(collector, export_interval_millis=3_600_000))
    here.store.gauge(metric.LOSS, {}, 5, 0.5)
    here.meter.force_flush()
    assert collector.names() == [["nissa.loss"]]
    here.store.gauge(metric.LOSS, {}, 6, 0.25)
    here.meter.shutdown()
    assert collector.names() == [["nissa.loss"], ["nissa.loss"]]


def test_uninstalling_leaves_the_provider_as_it_was(make_produced: Make) -> None:
    reader = InMemoryMetricReader()
    before = MeterProvider([reader], shutdown_on_exit=False)
    collect = before._measurement_consumer.collect
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {})
    here.producer.uninstall()
    assert here.collect() == {}
    assert here.meter._measurement_consumer.collect.__func__ is collect.__func__  # type: ignore[attr-defined]
    assert here.readers[0]._collect == here.meter._measurement_consumer.collect
    late = InMemoryMetricReader()
    here.meter.add_metric_reader(late)
    assert late.get_metrics_data() is None


def test_uninstalling_leaves_a_later_wrapper_in_place(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    consumer: Any = here.meter._measurement_consumer
    ours = consumer.collect

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        return ours(*arguments, **keywords)

    consumer.collect = wrapped
    here.readers[0]._set_collect_callback(wrapped)
    here.store.add(metric.SEED_UNSAMPLED, {})
    here.producer.uninstall()
    here.meter.get_meter("app").create_counter("requests").add(1)
    assert consumer.collect is wrapped
    assert list(here.collect(scope="app")) == ["requests"]
    assert here.collect() == {}


def test_uninstalling_twice_does_nothing(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.producer.uninstall()
    here.producer.uninstall()
    assert here.collect() == {}


def test_a_second_run_on_the_same_provider_starts_afresh(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {}, 5)
    assert here.collect()["nissa.seed.unsampled"].data.data_points[0].value == 5
    here.producer.uninstall()
    here.restart()
    assert here.collect() == {}
    here.store.add(metric.SEED_UNSAMPLED, {}, 2)
    assert here.collect()["nissa.seed.unsampled"].data.data_points[0].value == 2


@pytest.mark.parametrize(
    "provider",
    [api.NoOpMeterProvider(), api.get_meter_provider(), object(), None],
    ids=["no-op", "proxy", "object", "none"],
)
def test_a_provider_that_is_not_the_sdk_s_is_refused_with_the_reason(make_produced: Make, provider: object) -> None:
    here = make_produced()
    reason = here.producer.install(provider)
    assert reason is not None
    assert type(provider).__name__ in reason
    assert "not the OpenTelemetry SDK's" in reason


@pytest.mark.faults
def test_a_fault_of_ours_costs_the_application_nothing(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())

    def fail() -> None:
        raise ValueError("ours")

    here.store.refreshers.append(fail)
    here.meter.get_meter("app").create_counter("requests").add(1)
    assert list(here.collect(scope="app")) == ["requests"]
    assert here.error_boundary.faults == {"metric collection": 1}


def test_counts_that_are_kept_elsewhere_are_fetched_before_each_collection(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    totals = iter([4, 9])
    here.store.refreshers.append(lambda: here.store.set_total(metric.READBACK_DROPPED, {}, next(totals)))
    assert here.collect()["nissa.readback.dropped"].data.data_points[0].value == 4
    assert here.collect()["nissa.readback.dropped"].data.data_points[0].value == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_exports_nothing_of_a_run_s_own_provider(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(), owned=True)
    here.store.add(metric.SEED_UNSAMPLED, {})
    here.meter.get_meter("app").create_counter("requests").add(1)
    assert in_child(here.readers[0].get_metrics_data) == "None"
    assert list(here.collect()) == ["nissa.seed.unsampled"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_lock_that_was_held_at_the_fork(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader(), owned=True)
    with here.meter._measurement_consumer._lock:
        assert in_child(here.readers[0].get_metrics_data) == "None"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_exports_only_what_is_the_application_s_where_the_provider_is(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {})
    here.meter.get_meter("app").create_counter("requests").add(1)
    assert in_child(lambda: (list(here.collect(scope="app")), list(here.collect()))) == "(['requests'], [])"
