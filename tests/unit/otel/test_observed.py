"""Metrics through instruments: of the SDK, and of a small provider that implements the API and asks when told to."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.hub.error_boundary import ErrorBoundary
from nissa.otel.export.metric_reader import ExportReader
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.producer import MetricProducer
from nissa.otel.metrics.store import MetricStore
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import Kind
from tests.unit.otel.conftest import RESOURCE, metrics_of, nissa_scope

Callback = Callable[[api.CallbackOptions], Any]
_KINDS = {"gauge": Kind.GAUGE, "counter": Kind.COUNTER, "up_down_counter": Kind.UP_DOWN_COUNTER}


class AskingMeter(api.NoOpMeter):
    """Keeps the callbacks of its observable instruments, each name once."""

    def __init__(self) -> None:
        super().__init__("asking")
        self.callbacks: dict[str, tuple[Kind, str, Sequence[Callback]]] = {}

    def _make(self, kind: Kind, name: str, callbacks: Any, unit: str) -> Any:
        assert name not in self.callbacks, "an instrument is made once"
        self.callbacks[name] = (kind, unit, list(callbacks))

    def create_observable_gauge(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        assert description
        self._make(Kind.GAUGE, name, callbacks, unit)

    def create_observable_counter(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        assert description
        self._make(Kind.COUNTER, name, callbacks, unit)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        assert description
        self._make(Kind.UP_DOWN_COUNTER, name, callbacks, unit)


class AskingProvider(api.MeterProvider):
    """A meter provider that knows nothing of the SDK."""

    def __init__(self) -> None:
        self.meter = AskingMeter()
        self.asked_for: list[tuple[str, str | None]] = []

    def get_meter(self, name: str, version: str | None = None, *_: Any, **__: Any) -> api.Meter:
        self.asked_for.append((name, version))
        return self.meter

    def ask(self) -> dict[str, list[tuple[float, dict[str, Any]]]]:
        """Collect: what every callback has to tell, by instrument."""
        found = {
            name: [(each.value, dict(each.attributes)) for call in callbacks for each in call(api.CallbackOptions())]
            for name, (_, _, callbacks) in self.meter.callbacks.items()
        }
        return {name: told for name, told in found.items() if told}


class Offered:
    """A run's store, offered to a provider."""

    def __init__(self, provider: Any) -> None:
        self.store = MetricStore(1, GaugeLog(1000))
        self.error_boundary = ErrorBoundary()
        scope = InstrumentationScope("nissa", "1.2.3")
        self.producer = MetricProducer(self.store, scope, most_buckets=160, error_boundary=self.error_boundary)
        self.refused = self.producer.install(provider)


@pytest.fixture
def provider() -> AskingProvider:
    return AskingProvider()


def test_the_latest_value_of_each_gauge_and_count_is_told(provider: AskingProvider) -> None:
    here = Offered(provider)
    assert here.refused is None
    here.store.gauge(metric.LOSS, {"nissa.phase": "train"}, 5, 0.5)
    here.store.gauge(metric.LOSS, {"nissa.phase": "train"}, 6, 0.25)
    here.store.gauge(metric.LOSS, {"nissa.phase": "validation"}, 6, math.nan)
    here.store.add(metric.SEED_COUNT, {"nissa.seed.stage": "training"}, 3)
    here.store.add(metric.SEED_COUNT, {"nissa.seed.stage": "training"}, -1)
    here.store.add(metric.SEED_UNSAMPLED, {}, 4)
    here.store.observe(metric.STEP_DURATION, {}, 0.25)
    told = provider.ask()
    (train, validation) = told.pop("nissa.loss")
    assert train == (0.25, {"nissa.phase": "train"})
    assert math.isnan(validation[0]), "a loss that is not a number is a finding"
    assert told == {"nissa.seed.count": [(2, {"nissa.seed.stage": "training"})], "nissa.seed.unsampled": [(4, {})]}
    assert provider.asked_for == [("nissa", "1.2.3")]


def test_every_gauge_and_count_has_an_instrument_of_its_kind_and_unit(provider: AskingProvider) -> None:
    Offered(provider)
    expected = {spec.name: (spec.kind, spec.unit) for spec in metric.ALL if spec.kind in set(_KINDS.values())}
    assert {name: (kind, unit) for name, (kind, unit, _) in provider.meter.callbacks.items()} == expected


def test_what_is_not_exported_is_logged_once(provider: AskingProvider, caplog: pytest.LogCaptureFixture) -> None:
    Offered(provider)
    provider.ask()
    provider.ask()
    (record,) = caplog.records
    assert "AskingProvider" in record.getMessage()
    assert record.levelname == "WARNING"
    assert metric.GRADIENT_MAGNITUDE.name in record.getMessage()


def test_a_provider_that_no_reader_collects_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    Offered(MeterProvider([], shutdown_on_exit=False))
    assert caplog.records == []


def test_the_sdk_s_provider_exports_the_latest_values_and_histograms_of_every_value() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False)
    here = Offered(meter)
    for step in range(3):
        here.store.gauge(metric.STEP, {}, step, float(step))
        here.store.observe(metric.STEP_DURATION, {"nissa.env.id": "0"}, 0.003 * (step + 1))
    here.store.observe(metric.SEED_LIFESPAN, {"nissa.blueprint.id": "conv"}, 4)
    here.store.gauge_row(metric.GRADIENT_QUANTILE, ({"nissa.quantile": "0.5"},), 5, (0.25,), group="w")
    found = metrics_of(reader.get_metrics_data())
    assert [point.value for point in found["nissa.step"].data.data_points] == [2.0]
    assert [point.value for point in found["nissa.gradient.quantile"].data.data_points] == [0.25]
    (duration,) = found["nissa.step.duration"].data.data_points
    assert (duration.count, dict(duration.attributes)) == (3, {"nissa.env.id": "0"})
    assert [*duration.explicit_bounds] == [*metric.STEP_DURATION.bounds]
    assert duration.sum == pytest.approx(0.018)
    (lifespan,) = found["nissa.seed.lifespan"].data.data_points
    assert (lifespan.count, [*lifespan.explicit_bounds]) == (1, [*metric.SEED_LIFESPAN.bounds])
    here.producer.uninstall()
    here.store.observe(metric.SEED_LIFESPAN, {"nissa.blueprint.id": "conv"}, 4)
    (again,) = metrics_of(reader.get_metrics_data())["nissa.seed.lifespan"].data.data_points
    assert again.count == 1
    assert "nissa.step" not in metrics_of(reader.get_metrics_data())


def test_beside_the_pipeline_s_reader_others_get_instruments_which_the_pipeline_leaves_out() -> None:
    other, own = InMemoryMetricReader(), ExportReader(RESOURCE, {})
    meter = MeterProvider([other, own], resource=RESOURCE, shutdown_on_exit=False)
    store = MetricStore(1, GaugeLog(1000))
    producer = MetricProducer(store, nissa_scope(), most_buckets=160, error_boundary=ErrorBoundary())
    assert producer.install(meter, own, others=True) is None
    for step in range(3):
        store.gauge(metric.STEP, {}, step, float(step))
    store.observe(metric.STEP_DURATION, {}, 0.25)
    meter.get_meter("nissa", "1.2.3").create_counter("mine").add(1)
    ours = metrics_of(own.take())
    assert [point.value for point in ours["nissa.step"].data.data_points] == [0.0, 1.0, 2.0]
    assert [point.count for point in ours["nissa.step.duration"].data.data_points] == [1]
    assert "mine" in ours
    theirs = metrics_of(other.get_metrics_data())
    assert [point.value for point in theirs["nissa.step"].data.data_points] == [2.0]
    producer.uninstall()


def test_a_stream_that_has_ended_is_not_told_any_more(provider: AskingProvider) -> None:
    here = Offered(provider)
    here.store.gauge_row(metric.GRADIENT_NORM, ({"nissa.parameter.name": "w"},), 5, (0.5,), group="w")
    here.store.add(metric.GRADIENT_NONFINITE, {"nissa.parameter.name": "w"}, 2)
    assert sorted(provider.ask()) == ["nissa.gradient.nonfinite", "nissa.gradient.norm"]
    here.store.end_gauges("w")
    here.store.end(metric.GRADIENT_NONFINITE, {"nissa.parameter.name": "w"}, 6)
    assert provider.ask() == {}


def test_counts_that_are_kept_elsewhere_are_fetched_first(provider: AskingProvider) -> None:
    here = Offered(provider)
    totals = iter(range(10_000))
    here.store.refreshers.append(lambda: here.store.set_total(metric.READBACK_DROPPED, {}, next(totals)))
    before, after = (provider.ask()["nissa.readback.dropped"][0][0] for _ in range(2))
    assert after > before


def test_a_later_run_fills_the_same_instruments(provider: AskingProvider) -> None:
    first = Offered(provider)
    first.store.add(metric.SEED_UNSAMPLED, {}, 5)
    first.producer.uninstall()
    assert provider.ask() == {}
    second = Offered(provider)
    second.store.add(metric.SEED_UNSAMPLED, {}, 2)
    first.producer.uninstall()
    assert provider.ask() == {"nissa.seed.unsampled": [(2, {})]}
    second.producer.uninstall()
    assert provider.ask() == {}


@pytest.mark.faults
def test_a_fault_of_ours_costs_the_application_nothing(provider: AskingProvider) -> None:
    here = Offered(provider)
    here.store.add(metric.SEED_UNSAMPLED, {}, 5)
    here.store.refreshers.append(lambda: 1 // 0)  # type: ignore[arg-type]
    assert provider.ask() == {}
    assert set(here.error_boundary.faults) == {"metric collection"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_tells_nothing(provider: AskingProvider) -> None:
    here = Offered(provider)
    here.store.add(metric.SEED_UNSAMPLED, {}, 5)
    with here.store.lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - runs in the child
            os._exit(len(provider.ask()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert provider.ask()
