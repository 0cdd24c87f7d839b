"""Variables of the OTLP exporters, against a real collector."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.stack_settings import LOOPBACK
from tests.stack.variables.own_collector import SIGNALS, OwnCollector
from tests.stack.variables.recording import recording
from tests.stack.variables.small_run import LOSSES, SEEDS, SPANS, Collecting, Run

GZIP = b"\x1f\x8b\x08"
PLAIN_TEXT = b"nissa.run.id"
"""Part of each message of ours that is not compressed."""
CUMULATIVE, DELTA = 2, 1
EVERYTHING = {(signal, "plain") for signal in SIGNALS}


def check(collector: OwnCollector) -> None:
    """All of the run must have arrived, by whatever ways."""
    assert collector.arrived() == EVERYTHING
    assert {span.name for span in collector.spans()} >= SPANS
    assert [point.value for point in collector.points("nissa.loss")][: len(LOSSES)] == LOSSES
    assert "nissa.narrative" in {record["eventName"] for record in collector.records()}


def temporalities(collector: OwnCollector) -> dict[str, set[int]]:
    """Return how each metric was told."""
    found: dict[str, set[int]] = {}
    for line in collector.requests("metrics"):
        scopes = (scope for resource in line["resourceMetrics"] for scope in resource["scopeMetrics"])
        for metric in (metric for scope in scopes for metric in scope["metrics"]):
            for kind in ("sum", "histogram", "exponentialHistogram"):
                if kind in metric:
                    found.setdefault(metric["name"], set()).add(metric[kind]["aggregationTemporality"])
    return found


def test_grpc_with_headers_and_gzip_and_totals(collector: Collecting, run: Run) -> None:
    with collector() as found, recording(found.grpc["plain"]) as door:
        done = run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{door.port}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-team=vision,x-token=a%20b",
                "OTEL_SERVICE_NAME": "digits",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=lab,service.name=overruled",
            }
        )
    check(found)
    assert done.destination == f"OTLP at http://localhost:{door.port}"
    for resource in (each for signal in SIGNALS for each in found.resources(signal)):
        assert (resource["header.x-team"], resource["header.x-token"]) == ("vision", "a b")
        assert "grpc" in resource["header.user-agent"]
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("digits", "lab")
        assert resource["nissa.run.id"] == "run-1"
    assert GZIP in door.said
    assert PLAIN_TEXT not in door.said
    assert set().union(*temporalities(found).values()) == {CUMULATIVE}


def test_http_with_deflate_and_differences(collector: Collecting, run: Run) -> None:
    with collector() as found, recording(found.http["plain"]) as door:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{door.port}/",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate",
                "OTEL_EXPORTER_OTLP_HEADERS": "X-Team=vision",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
            },
            within="time.sleep(0.7)\nlate = run.germinate('late', blueprint='conv', slot='r0c0')",
        )
    check(found)
    assert {each["header.x-team"] for signal in SIGNALS for each in found.resources(signal)} == {"vision"}
    assert b"content-encoding: deflate" in door.said.lower()
    assert PLAIN_TEXT not in door.said
    assert len(found.requests("metrics")) > 2, "an interval of 0.2 s"
    told = temporalities(found)
    assert told.pop("nissa.seed.count") == {CUMULATIVE}
    assert set().union(*told.values()) == {DELTA}
    evaluations = [point.value for point in found.points("nissa.seed.gate.evaluations")]
    assert len(evaluations) > 2
    assert sum(evaluations) == SEEDS


def test_each_signal_goes_its_own_way(collector: Collecting, run: Run) -> None:
    with collector() as found, ExitStack() as stack:
        doors = {
            signal: stack.enter_context(recording((found.grpc if signal == "traces" else found.http)["plain"]))
            for signal in SIGNALS
        }
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:9",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-team=nobody",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://localhost:{doors['traces'].port}",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://localhost:{doors['metrics'].port}/v1/metrics",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://localhost:{doors['logs'].port}/v1/logs",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-team=traces",
                "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-team=metrics",
                "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "x-team=logs",
                "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
                "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "none",
                "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "deflate",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "LowMemory",
            }
        )
    check(found)
    for signal in SIGNALS:
        assert {each["header.x-team"] for each in found.resources(signal)} == {signal}
        assert ("grpc" in found.resources(signal)[0]["header.user-agent"]) == (signal == "traces")
        assert (PLAIN_TEXT in doors[signal].said) == (signal == "metrics"), signal
        assert (GZIP in doors[signal].said) == (signal == "traces"), signal
    told = temporalities(found)
    assert told.pop("nissa.seed.count") == {CUMULATIVE}
    assert set().union(*told.values()) == {DELTA}


@pytest.mark.parametrize(
    ("protocol", "variables"),
    [
        ("grpc", {"": "1"}),
        ("http/protobuf", {"": "60", "TRACES_": "1", "METRICS_": "1", "LOGS_": "1"}),
    ],
    ids=["general", "by-signal"],
)
def test_timeouts_are_in_seconds(run: Run, protocol: str, variables: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:  # connections are made, and nothing is ever answered
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{silent.getsockname()[1]}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "NISSA_LIMITS__EXIT_TIMEOUT_SECONDS": "0.2",
                **{f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT": seconds for signal, seconds in variables.items()},
            },
            within="began = time.monotonic()\nrun.flush(30)\nopen('took', 'w').write(str(time.monotonic() - began))",
        )
    assert 0.9 < float((tmp_path / "run" / "took").read_text()) < 9
