"""Variables of the SDK itself: sampling, limits, batches, intervals. A real collector shows what became of them."""

import json
from typing import Any

from tests.stack.variables.own_collector import SIGNALS, OwnCollector
from tests.stack.variables.small_run import SEEDS, SPANS, Collecting, Run

APPLICATION = """
from opentelemetry import metrics, trace
with trace.get_tracer("app").start_as_current_span("theirs") as span:
    span.set_attributes({"a": "123456789", "b": "123456789", "c": "123456789"})
    for number in range(3):
        span.add_event("event", {"a": 1, "b": 2})
    for number in range(3):
        span.add_link(span.get_span_context(), {"a": 1, "b": 2})
metrics.get_meter("app").create_histogram("latency").record(0.5)
"""
"""What an application says through the providers that the run has set up."""


def theirs(collector: OwnCollector) -> tuple[int, set[int], int, set[int], int, set[int]]:
    """Return how much is left of the application's span: attributes, their lengths, events, links, and their attributes."""
    (span,) = (each for line in collector.requests("traces") for each in _spans(line) if each["name"] == "theirs")
    events, links = span.get("events", []), span.get("links", [])
    return (
        len(span["attributes"]),
        {len(each["value"]["stringValue"]) for each in span["attributes"]},
        len(events),
        {len(each["attributes"]) for each in events},
        len(links),
        {len(each["attributes"]) for each in links},
    )


def _spans(line: Any) -> list[Any]:
    return [span for resource in line["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]]


def exemplars(collector: OwnCollector) -> set[str]:
    """Return the traces that exemplars lead to."""
    points = [*collector.points("nissa.step.duration"), *collector.points("nissa.gradient.magnitude")]
    assert points
    return {each["traceId"] for point in points for each in point.raw.get("exemplars", [])}


def counts(collector: OwnCollector, metric: str) -> int:
    return sum(int(point.value) for point in collector.points(metric))


def test_by_default_all_is_sampled_and_exemplars_lead_to_the_epoch(collector: Collecting, run: Run) -> None:
    with collector() as found:
        run({"OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint()}, within=APPLICATION)
    epochs = {span.trace_id for span in found.spans() if span.name == "epoch"}
    assert exemplars(found) == epochs
    assert theirs(found) == (3, {9}, 3, {2}, 3, {2})
    assert not found.points("nissa.seed.unsampled")
    assert {point.kind for point in found.points("latency")} == {"histogram"}
    assert not [point for point in found.points() if point.metric.startswith("otel.sdk.")]


def test_what_a_sampler_drops_is_counted_and_no_exemplar_is_sent_where_none_is_wanted(
    collector: Collecting, run: Run
) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_TRACES_SAMPLER": "traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0",
                "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
            },
            within=APPLICATION,
        )
    assert found.arrived() == {("metrics", "plain"), ("logs", "plain")}
    assert counts(found, "nissa.seed.unsampled") == SEEDS
    assert exemplars(found) == set()
    assert {point.kind for point in found.points("latency")} == {"exponentialHistogram"}
    assert {point.kind for point in found.points("nissa.step.duration")} == {"histogram"}
    assert {point.kind for point in found.points("nissa.gradient.magnitude")} == {"exponentialHistogram"}


def test_limits_of_one_signal(collector: Collecting, run: Run) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_ATTRIBUTE_COUNT_LIMIT": "100",
                "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100",
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2",
                "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
                "OTEL_SPAN_EVENT_COUNT_LIMIT": "2",
                "OTEL_SPAN_LINK_COUNT_LIMIT": "1",
                "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "1",
                "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "1",
                "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "3",
                "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5",
            },
            within=APPLICATION,
        )
    assert theirs(found) == (2, {4}, 2, {1}, 1, {1})
    ours = [span for span in found.spans() if span.name in SPANS]
    assert max(len(span.attributes) for span in ours) == 2
    attributes = [record.get("attributes", []) for record in found.records()]
    assert max(map(len, attributes)) == 3
    texts = [each["value"].get("stringValue", "") for some in attributes for each in some]
    assert max(map(len, texts)) == 5
    phases = {point.attributes["nissa.phase"] for point in found.points("nissa.loss")}
    assert phases == {"train", "validation"}, "metrics are not limited"


def test_limits_of_all_signals(collector: Collecting, run: Run) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_ATTRIBUTE_COUNT_LIMIT": "2",
                "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
            },
            within=APPLICATION,
        )
    assert theirs(found)[:2] == (2, {4})
    attributes = [record.get("attributes", []) for record in found.records()]
    assert max(map(len, attributes)) == 2
    assert max(len(each["value"].get("stringValue", "")) for some in attributes for each in some) == 4


BATCHES = """
import logging, os, json
from opentelemetry import _logs, trace
def there(signal):
    path = os.path.join(os.environ["ARRIVED"], f"plain-{signal}.jsonl")
    return os.path.exists(path) and os.path.getsize(path) > 0
deadline = time.monotonic() + 20
while not (there("traces") and there("metrics")) and time.monotonic() < deadline:
    time.sleep(0.05)
logging.getLogger("app").warning("said by the application")
queues = [
    trace.get_tracer_provider()._active_span_processor._span_processors[0]._batch_processor._max_queue_size,
    _logs.get_logger_provider()._multi_log_record_processor._log_record_processors[0]._batch_processor._max_queue_size,
]
print(json.dumps({"there": [there("traces"), there("metrics"), there("logs")], "queues": queues}))
"""


def test_batches_queues_and_intervals(collector: Collecting, run: Run) -> None:
    with collector() as found:
        done = run(
            {
                "ARRIVED": str(found.folder),
                "NISSA_FILES__DELIVERY": "sdk",  # Nissa's own pipeline has neither these queues nor batches
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
                "OTEL_BSP_MAX_QUEUE_SIZE": "300",
                "OTEL_BSP_EXPORT_TIMEOUT": "1",
                "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
                "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "50",
                "OTEL_BLRP_MAX_QUEUE_SIZE": "400",
                "OTEL_BLRP_EXPORT_TIMEOUT": "1",
                "OTEL_METRIC_EXPORT_INTERVAL": "100",
                "OTEL_METRIC_EXPORT_TIMEOUT": "5000",
                "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
                "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
            },
            within=BATCHES,
        )
    said = json.loads(done.out)
    assert said == {"there": [True, True, False], "queues": [300, 400]}
    assert found.arrived() == {(signal, "plain") for signal in SIGNALS}
    assert max(len(_spans(line)) for line in found.requests("traces")) == 4
    assert len(found.requests("logs")) == 1
    assert "said by the application" in {each.get("body", {}).get("stringValue") for each in found.records()}
    (exported,) = {point.kind for point in found.points("otel.sdk.exporter.span.exported")}
    assert exported == "sum"
