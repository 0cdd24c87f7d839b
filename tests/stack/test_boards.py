"""What boards and rules ask is answered by the real servers: each query after the demo, or after what it waits for."""

import json
import re
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from dashboards import recording
from dashboards.promql import series
from nissa.semconv import attributes as attr
from nissa.semconv import metrics
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.cases import for_each
from tests.dashboards.reading import Asked, of_annotations, of_panels, of_variables, rules, targets
from tests.stack.faults.gate import gate
from tests.stack.faults.gate import partial as partial_success
from tests.stack.faults.trainee import START, training
from tests.stack.queries import Past, fetch, samples, tags, trace
from tests.stack.runs import demonstrated, everything
from tests.stack.training import TRANSPORTS, Transport, environment, service_name, start
from tests.support import until

EXPECTED_EMPTY = {
    "nissa-gradients / Now / Clipping A": "gradients are clipped",
    "nissa-gradients / Worst layers / Layers F": "updates are measured",
    "nissa-gradients / Norms / Norm of all gradients B": "gradients are clipped",
    "nissa-gradients / Trouble / Elements that are not finite A": "a gradient is infinite",
    "nissa-gradients / Updates / Update over weight A": "updates are measured",
    "nissa-overview / Learning / Logged values A": "the loop logs values of its own",
    "nissa-overview / Learning / Value of backward() A": "nobody logs the loss of a step",
    "nissa-overview / Speed / Throughput A": "the loop logs items",
    "nissa-overview / Optimizer / Clip norm A": "gradients are clipped",
    "nissa-overview / Optimizer / Clip factor A": "gradients are clipped",
    "nissa-overview / Optimizer / Skipped steps A": "loss scaling leaves a step out",
    "nissa-overview / Run / Memory of the device A": "a CUDA device is used; here one is simulated",
    "nissa-overview / Ranks / Replicas A": "replicas are compared",
    "nissa-overview / Ranks / Replicas B": "replicas are compared",
    "nissa-overview / Ranks / Skew of ranks A": "replicas are compared",
    "nissa-overview / Health and cost / Sharpness A": "sharpness is measured",
    "nissa-overview / Health and cost / Learning rate over the critical one A": "sharpness is measured",
    "nissa-seeds / Now / Refused transitions A": "a policy asks for a transition that is not allowed",
    "nissa-seeds / Ends / Seeds without a trace A": "the sampler drops a seed",
    "nissa-telemetry / Now / Rejected A": "something that is no event is handed to the hub",
    "nissa-telemetry / Hub / Not delivered A": "something that is no event is handed to the hub",
}
"""Queries that a demo which goes well leaves empty, with the event that fills each: all of them happen in `everything`."""

APART = {
    "nissa-overview / Findings / Alerts A": "an alert is pending or fires",
    "nissa-telemetry / Now / Dropped or failed A": "a backend fails",
    "nissa-telemetry / Collector / Given up by the collector A": "Prometheus refuses samples that are too old",
    "nissa-telemetry / Export / Refused or lost A": "a collector rejects telemetry",
}
"""Queries whose answer after the demo depends on more than the demo; each has a test of its own that fills it."""

WITHOUT_VALUES = ("$rank", "$model")
"""Variables of which the demo, one process with one model in each environment, has no values; `everything` has."""

PANELS = [*of_panels(), *of_annotations()]
TRAINED = TRANSPORTS[0]


@dataclass(frozen=True)
class Seen:
    """A run that Prometheus has, and when it was.

    Args:
        service: Its service.
        run: Its id.
        end: Seconds since the Unix epoch, a little after its last step.
    """

    service: str
    run: str
    end: float

    def ask(self, stack: Stack, asked: Asked, **chosen: str) -> list[Any]:
        """Return what a query returns, as Grafana would ask it when the run was over."""
        expression = asked.filled({"service": self.service, "run": self.run, **chosen})
        if asked.instant:
            return [each for each in samples(stack, expression, time=self.end) if _says_something(each)]
        answer = fetch(
            f"{stack.prometheus}/api/v1/query_range", query=expression, start=self.end - 240, end=self.end, step=5
        )
        return [each for each in answer["data"]["result"] if _says_something(each)]


def _says_something(sample: Any) -> bool:
    numbers = [value for _, value in (*sample.get("values", ()), *([sample["value"]] if "value" in sample else ()))]
    return any(value != "NaN" for value in numbers) or "histogram" in sample or "histograms" in sample


def _when_over(past: Past, service: str, run: str) -> Seen:
    """Wait until rules have been evaluated after a run's last step, and return the run."""
    step = series(metrics.STEP, {attr.RUN_ID: run})
    end = until(lambda: past.value(f"max(timestamp({step}))"), f"steps of {run}") + 25
    time.sleep(max(0.0, end - time.time()))
    return Seen(service, run, end)


@pytest.fixture(scope="module")
def demo(stack: Stack, stack_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    made = demonstrated(stack, stack_folder, tmp_path_factory.mktemp("demo"), TRAINED)
    return _when_over(made.past, "nissa-demo", made.told["run_id"])


@pytest.fixture(scope="module")
def eventful(stack: Stack, stack_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    told = everything(stack, stack_folder, tmp_path_factory.mktemp("everything"), TRAINED)
    return _when_over(told.past, told.service, told.service)


@for_each("asked", [each for each in PANELS if each.where not in APART], ids=lambda each: each.where)
def test_a_query_is_answered_after_the_demo_or_is_listed(stack: Stack, demo: Seen, asked: Asked) -> None:
    answered = bool(demo.ask(stack, asked))
    assert answered is (asked.where not in EXPECTED_EMPTY), asked.expression


def test_a_distribution_is_that_of_one_parameter_or_of_all(stack: Stack, demo: Seen) -> None:
    (asked,) = [each for each in PANELS if each.where == "nissa-gradients / Distribution / Absolute values A"]
    counted = Asked(asked.where, f"histogram_count({asked.expression})", instant=False)
    one, everything_ = demo.ask(stack, counted, distribution="head[.]weight"), demo.ask(stack, counted)
    assert 0 < _most(one) < _most(everything_)


def _most(found: list[Any]) -> float:
    return max(float(value) for each in found for _, value in each["values"])


@for_each("where", EXPECTED_EMPTY)
def test_a_listed_query_is_answered_once_its_event_has_happened(stack: Stack, eventful: Seen, where: str) -> None:
    (asked,) = [each for each in PANELS if each.where == where]
    assert eventful.ask(stack, asked), f"{EXPECTED_EMPTY[where]}, and yet: {asked.expression}"


@for_each("asked", rules("record"), ids=lambda each: each.where)
def test_recording_rules_have_recorded_the_demo(stack: Stack, demo: Seen, asked: Asked) -> None:
    (rule,) = [rule for rule in recording.ALL if rule.name == asked.where]
    assert demo.ask(stack, Asked(rule.name, series(rule, {attr.RUN_ID: demo.run}), instant=False))


@pytest.mark.usefixtures("demo")
def test_prometheus_evaluates_every_rule_without_a_fault(stack: Stack) -> None:
    groups = fetch(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
    found = {rule["name"]: (rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}
    assert found == {asked.where: ("ok", "") for asked in (*rules("record"), *rules("alert"))}


@for_each("where, selector, label", of_variables())
def test_a_variable_has_values(stack: Stack, demo: Seen, eventful: Seen, where: str, selector: str, label: str) -> None:
    seen = eventful if where.endswith(WITHOUT_VALUES) else demo
    matched = Asked(where, selector, instant=True).filled({"service": seen.service, "run": seen.run})
    asked: dict[str, str | float] = {"match[]": matched, "start": seen.end - 240, "end": seen.end}
    assert fetch(f"{stack.prometheus}/api/v1/label/{label}/values", **asked)["data"]


@for_each("where, target", [each for each in targets("jaeger") if "operation" in each[1]])
def test_a_search_finds_traces(stack: Stack, demo: Seen, where: str, target: dict[str, str]) -> None:
    searched = dict(re.findall(r'([\w.]+)="([^"]*)"', target["tags"].replace("$run", demo.run)))
    assert searched == {attr.RUN_ID: demo.run}, where
    found = until(partial(_traces, stack, demo.service, target["operation"], searched), target["operation"])
    (span, *_) = [span for span in trace(stack, found[0]["traceID"]) if span["operationName"] == target["operation"]]
    assert {names.VALIDATION: attr.NARRATIVE, names.SEED: attr.SEED_OUTCOME}[target["operation"]] in tags(span)


def _traces(stack: Stack, service: str, operation: str, searched: dict[str, str]) -> list[Any]:
    asked: dict[str, str | float] = {
        "service": service,
        "operation": operation,
        "tags": json.dumps(searched),
        "limit": 5,
    }
    found: list[Any] = fetch(f"{stack.jaeger}/api/traces", **asked)["data"] or []
    return found


def _apart(where: str) -> Asked:
    (asked,) = [each for each in PANELS if each.where == f"nissa-{where}"]
    return asked


def test_alerts_are_shown_once_one_fires(stack: Stack, eventful: Seen) -> None:
    asked = _apart("overview / Findings / Alerts A")
    shown = {each["metric"]["alertname"] for each in eventful.ask(stack, asked)}
    assert {"NissaGradientsNotFinite"} <= shown


def test_what_a_backend_failed_at_is_shown_and_raises_an_alert(stack: Stack, tmp_path: Path) -> None:
    service = service_name("losing")
    process = start("losing", tmp_path, environment(stack, TRAINED, service))
    assert process.wait(timeout=120) == 0
    seen = Seen(service, service, time.time() + 30)
    asked = _apart("telemetry / Now / Dropped or failed A")
    assert until(lambda: seen.ask(stack, asked), "failures")
    (alert,) = [each for each in rules("alert") if each.where == "NissaTelemetryDropped"]
    assert service in {each["metric"]["service_name"] for each in seen.ask(stack, alert)}


def test_what_a_collector_rejects_is_shown_and_raises_an_alert(stack: Stack, tmp_path: Path) -> None:
    service = service_name("rejected")
    transport = Transport("http/protobuf", "cumulative")
    with gate(stack) as opened:
        opened.answer = partial_success
        environ = environment(stack, transport, service) | {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.address}
        with training(START, tmp_path, environ) as trainee:
            # What was rejected is exported with the metrics, every five seconds.
            until(lambda: trainee.lives and trainee.lives[-1]["at"] > trainee.lives[0]["at"] + 11, "two exports")
            trainee.end()
            assert trainee.wait() == 0, "".join(trainee.errors)
    seen = Seen(service, service, time.time() + 30)
    assert until(lambda: seen.ask(stack, _apart("telemetry / Export / Refused or lost A")), "rejected items")
    (alert,) = [each for each in rules("alert") if each.where == "NissaExportLost"]
    assert service in {each["metric"]["service_name"] for each in seen.ask(stack, alert)}


def test_what_the_collector_gives_up_is_shown_and_raises_an_alert(stack: Stack) -> None:
    _send_old(stack)
    asked = _apart("telemetry / Collector / Given up by the collector A")
    (alert,) = [each for each in rules("alert") if each.where == "NissaCollectorLosing"]
    for each in (asked, alert):
        found = until(lambda each=each: samples(stack, each.filled({})), each.where)  # type: ignore[misc]
        assert "otlp_http/prometheus" in {sample["metric"]["exporter"] for sample in found}


def _send_old(stack: Stack) -> None:
    """Send a point that is older than Prometheus keeps any."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="old")
    metric.gauge.data_points.add(time_unix_nano=time.time_ns() - 40 * 24 * 3600 * 10**9, as_double=1.0)
    head = {"Content-Type": "application/x-protobuf"}
    address = f"{stack.otlp_http}/v1/metrics"
    with urlopen(Request(address, request.SerializeToString(), head), timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.status == HTTPStatus.OK
