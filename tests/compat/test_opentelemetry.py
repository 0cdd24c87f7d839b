"""Every name of `nissa.otel.compat` does what its docstring states, with the release of the SDK that is installed."""

import os
import subprocess
import sys
from typing import Any

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from nissa.otel import compat

NOWHERE = "http://127.0.0.1:9/v1/metrics"


def provider(*readers: Any, **settings: Any) -> MeterProvider:
    return MeterProvider(readers, shutdown_on_exit=False, **settings)


def test_instrumented_libraries_are_told_to_record_no_span() -> None:
    assert is_instrumentation_enabled()
    token = context.attach(context.Context())
    compat.suppress_instrumentation()
    assert not is_instrumentation_enabled()
    context.detach(token)
    assert is_instrumentation_enabled()


def test_global_providers_are_built_with_further_attributes_of_the_resource() -> None:
    code = (
        "from nissa.otel.compat import configure_providers, metric_readers\n"
        "from opentelemetry import metrics, trace\n"
        "configure_providers({'nissa.run.id': 'r1'})\n"
        "print(trace.get_tracer_provider().resource.attributes['nissa.run.id'], len(metric_readers(metrics.get_meter_provider())))"
    )
    names = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "LOGS")} | {"OTEL_METRICS_EXPORTER": "console"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **names}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == "r1 1", done.stderr


def test_the_readers_of_a_provider_are_found_and_classified() -> None:
    pull = InMemoryMetricReader()
    push = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=NOWHERE), export_interval_millis=1e9)
    made = provider(pull, push)
    assert [*compat.metric_readers(made)] == [pull, push]
    assert (compat.pulls(pull), compat.pulls(push)) == (True, False)
    assert [*compat.metric_readers(object())] == []
    push._set_collect_callback(lambda *_, **__: None)  # type: ignore[arg-type]  # nothing to send at its end
    push.shutdown(timeout_millis=1)


def test_the_temporality_of_a_reader_is_known_by_instrument() -> None:
    delta = AggregationTemporality.DELTA
    reader = InMemoryMetricReader(preferred_temporality={Counter: delta})
    assert delta in compat.temporality_by_instrument(reader).values()
    assert delta not in compat.temporality_by_instrument(InMemoryMetricReader()).values()
    assert compat.temporality_by_instrument(object()) == {}


def test_batches_are_limited_where_there_is_no_limit_and_restored() -> None:
    unlimited = OTLPMetricExporter(endpoint=NOWHERE)
    reader = PeriodicExportingMetricReader(unlimited, export_interval_millis=1e9)
    restore = compat.limit_batches(reader, 3_000)
    assert restore is not None
    assert compat.limit_batches(reader, 10) is None
    restore()
    again = compat.limit_batches(reader, 10)
    assert again is not None
    again()
    limited = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=NOWHERE, max_export_batch_size=5))
    assert compat.limit_batches(limited, 10) is None
    assert compat.limit_batches(object(), 10) is None


def test_a_collection_is_wrapped_for_present_and_future_readers_and_restored() -> None:
    first = InMemoryMetricReader()
    made = provider(first, resource=Resource({"a": 1}))
    made.get_meter("test").create_counter("own").add(1)
    collection = compat.MeterCollection.of(made)
    assert collection is not None
    assert collection.resource.attributes["a"] == 1
    assert collection.has_exemplars
    assert [*collection.readers] == [first]
    collected: list[Any] = []

    def wrapped(original: compat.Collect) -> compat.Collect:
        def collect(reader: Any, timeout_millis: float = 10_000) -> MetricsData | None:
            collected.append(reader)
            return original(reader, timeout_millis)

        return collect

    restore = collection.wrap(wrapped)
    second = InMemoryMetricReader()
    made.add_metric_reader(second)
    assert first.get_metrics_data() is not None
    second.get_metrics_data()
    assert collected[:1] == [first]
    assert second in collected
    restore()
    collected.clear()
    assert first.get_metrics_data() is not None
    assert collected == []


def test_a_collection_knows_whether_exemplars_are_off_and_other_providers_have_none() -> None:
    without = compat.MeterCollection.of(provider(exemplar_filter=AlwaysOffExemplarFilter()))
    assert without is not None
    assert not without.has_exemplars
    assert compat.MeterCollection.of(object()) is None
