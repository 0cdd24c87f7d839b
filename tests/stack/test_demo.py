"""The demo's telemetry, asked for over the APIs of Jaeger and Prometheus."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus
from scripts.stack import Stack
from tests.stack.queries import fetch, samples, tags
from tests.support import until

Report = dict[str, Any]

SILENT = {metrics.SEED_UNSAMPLED, metrics.SEED_REFUSED}
"""Metrics of which a demo that goes well has no points; `tests/architecture/test_alive.py` shows them alive."""


@pytest.fixture(scope="module")
def demo(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return what the demo says of itself, its telemetry sent to the collector over grpc."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("NISSA_", "OTEL_"))}
    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_grpc, "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "nissa"), "demo", "--json"],
        cwd=tmp_path_factory.mktemp("demo"),
        env=environ | {"NISSA_RUN_ID": f"demo-{uuid4().hex[:8]}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    report: Report = json.loads(done.stdout)
    assert report["directory"] is None
    return report


def _seeds(report: Report) -> list[Report]:
    return [seed for environment in report["environments"] for seed in environment["seeds"]]


def _trace(stack: Stack, seed: Report) -> list[Any]:
    def look() -> list[Any] | None:
        found = fetch(f"{stack.jaeger}/api/traces/{seed['trace_id']}")["data"]
        spans: list[Any] = found[0]["spans"] if found else []
        return spans if any(span["operationName"] == "seed" for span in spans) else None

    return until(look, f"the trace of {seed['seed_id']}")


def test_jaeger_has_the_life_of_every_seed(stack: Stack, demo: Report) -> None:
    for seed in _seeds(demo):
        spans = _trace(stack, seed)
        root = next(span for span in spans if span["operationName"] == "seed")
        assert tags(root)[attr.SEED_OUTCOME] == seed["outcome"]
        assert tags(root)[attr.BLUEPRINT_ID] == seed["blueprint"]
        stages = [
            span
            for span in spans
            if span["operationName"].startswith("seed.") and not span["operationName"].endswith(".started")
        ]
        told = sorted(
            (span["startTime"], span["startTime"] + span["duration"], span["operationName"]) for span in stages
        )
        assert [(start, name) for start, _, name in told] == [
            (stage["time_unix_nano"] // 1000, f"seed.{stage['stage']}") for stage in seed["stages"]
        ]
        fields = [{field["key"]: field["value"] for field in log["fields"]} for span in stages for log in span["logs"]]
        gates = sorted(each[attr.GATE_NAME] for each in fields if attr.GATE_NAME in each)
        assert gates == sorted(gate["gate"] for gate in seed["gates"])


def test_jaeger_finds_seeds_by_blueprint_and_outcome(stack: Stack, demo: Report) -> None:
    kept = next(seed for seed in _seeds(demo) if seed["outcome"] == "fossilized")
    wanted = {attr.BLUEPRINT_ID: kept["blueprint"], attr.SEED_OUTCOME: "fossilized", attr.RUN_ID: demo["run_id"]}

    def look() -> bool:
        query: dict[str, str | float] = {"service": "nissa-demo", "operation": "seed", "limit": 100}
        found = fetch(f"{stack.jaeger}/api/traces", tags=json.dumps(wanted), **query)["data"] or []
        return kept["trace_id"] in {trace["traceID"] for trace in found}

    assert until(look, "the search")


@pytest.mark.parametrize("spec", [spec for spec in metrics.ALL if spec not in SILENT], ids=lambda spec: spec.name)
def test_prometheus_has_every_metric(stack: Stack, demo: Report, spec: metrics.MetricSpec) -> None:
    name = prometheus.series(spec)
    run = f'nissa_run_id="{demo["run_id"]}"'
    histogram = spec.kind is metrics.Kind.HISTOGRAM
    selector = f"{name}_count{{{run}}}" if histogram else f"{name}{{{run}}}"
    expression = f"last_over_time({selector}[30m])"
    found = until(lambda: samples(stack, expression), f"{selector} in Prometheus")
    labels = {prometheus.label(key) for key in spec.attributes}
    assert labels <= {label for sample in found for label in sample["metric"]}


def test_points_have_the_times_of_their_steps(stack: Stack, demo: Report) -> None:
    selector = f'nissa_step{{nissa_run_id="{demo["run_id"]}", nissa_env_id="0"}}[30m]'
    (series,) = until(lambda: samples(stack, selector), "steps")
    times = [float(time) for time, _ in series["values"]]
    steps = [float(step) for _, step in series["values"]]
    assert steps == sorted(steps)
    # Exports are 5 s apart; many points lie between two of them, at different times.
    assert len(set(times)) == len(times) > 100
