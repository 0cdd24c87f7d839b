"""Our metrics in what readers collect, and nothing of the application's lost."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
)

from nissa.semconv import metrics as metric
from tests.unit.otel.conftest import RESOURCE

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Produced

Make = Callable[..., "Produced"]


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
    assert here.data() is None


def test_the_application_s_instruments_are_kept(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.meter.get_meter("app").create_counter("requests").add(2)
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.data()
    assert sorted(scope.scope.name for scope in data.resource_metrics[0].scope_metrics) == ["app", "nissa"]
    assert len(data.resource_metrics) == 1


def test_other_instruments_of_the_same_scope_are_kept(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.meter.get_meter("nissa", "1.2.3").create_counter("mine").add(1)
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.data()
    (scope,) = data.resource_metrics[0].scope_metrics
    assert [each.name for each in scope.metrics] == ["mine", "nissa.seed.unsampled"]


def test_our_metrics_carry_the_provider_s_resource(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {})
    data = here.data()
    assert data.resource_metrics[0].resource == RESOURCE


def test_a_reader_that_is_added_later_works(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.gauge(metric.LOSS, {}, 5, 0.5)
    here.store.add(metric.SEED_UNSAMPLED, {})
    late = InMemoryMetricReader()
    here.meter.add_metric_reader(late)
    here.readers = (*here.readers, late)
    assert sorted(here.collect(1)) == ["nissa.loss", "nissa.seed.unsampled"]
    assert sorted(here.collect(0)) == ["nissa.loss", "nissa.seed.unsampled"]


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
def test_a_provider_without_an_implementation_is_refused_with_the_reason(make_produced: Make, provider: object) -> None:
    here = make_produced()
    reason = here.producer.install(provider)
    assert reason is not None
    assert type(provider).__name__ in reason
    assert "exports nothing" in reason


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
def test_a_forked_child_exports_only_what_is_the_application_s_where_the_provider_is(make_produced: Make) -> None:
    here = make_produced(InMemoryMetricReader())
    here.store.add(metric.SEED_UNSAMPLED, {})
    here.meter.get_meter("app").create_counter("requests").add(1)
    assert in_child(lambda: (list(here.collect(scope="app")), list(here.collect()))) == "(['requests'], [])"
