"""A replay to collectors that ask for more: certificates, headers, and messages of at most 4 MiB."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stack.test_replay import command
from tests.stack.variables.own_collector import SIGNALS
from tests.stack.variables.small_run import Collecting
from tests.stack.variables.test_large import LIMIT
from tests.stack.variables.test_tls import own

BARE = {"PATH": "/usr/bin:/bin"}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "large"}}]}
SPAN = {
    "traceId": "0af7651916cd43dd8448eb211c80319c",
    "spanId": "b7ad6b7169203331",
    "name": "seed",
    "startTimeUnixNano": "1700000000000000000",
    "endTimeUnixNano": "1700000000000000001",
}
RECORD = {"timeUnixNano": "1700000000000000000", "body": {"stringValue": "text"}, "traceId": SPAN["traceId"]}


def gauge(count: int) -> dict[str, Any]:
    """Return a metric with so many points, of a stream and a time each."""
    streams = [{"key": "nissa.parameter.name", "value": {"stringValue": f"layer.{n}.weight"}} for n in range(count)]
    return {
        "name": "nissa.gradient.norm",
        "gauge": {
            "dataPoints": [
                {"timeUnixNano": str(1_700_000_000_000_000_000 + n), "asDouble": n / 3, "attributes": [stream]}
                for n, stream in enumerate(streams)
            ]
        },
    }


def write(folder: Path, points: int) -> None:
    """Write a run of one span, one record and a line of points."""
    folder.mkdir()
    scope = {"scope": {"name": "nissa"}}
    found = {
        "traces": {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [{**scope, "spans": [SPAN]}]}]},
        "metrics": {
            "resourceMetrics": [{"resource": RESOURCE, "scopeMetrics": [{**scope, "metrics": [gauge(points)]}]}]
        },
        "logs": {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{**scope, "logRecords": [RECORD]}]}]},
    }
    for signal in SIGNALS:
        (folder / f"{signal}.jsonl").write_text(json.dumps(found[signal]) + "\n")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_line_larger_than_a_message_goes_in_parts(collector: Collecting, tmp_path: Path, protocol: str) -> None:
    write(tmp_path / "written", 40_000)
    assert (tmp_path / "written" / "metrics.jsonl").stat().st_size > LIMIT
    with collector() as found:
        said = command(BARE, tmp_path / "written", "--endpoint", found.endpoint("plain", protocol))
    assert said["signals"]["metrics"]["sent"] == 40_000
    assert len(found.requests("metrics")) == said["signals"]["metrics"]["requests"] > 1
    assert [(p.time - 1_700_000_000_000_000_000, p.value) for p in found.points()] == [
        (n, n / 3) for n in range(40_000)
    ]
    (span,) = found.spans()
    assert (span.trace_id, span.span_id, span.start) == (SPAN["traceId"], SPAN["spanId"], 1_700_000_000_000_000_000)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_certificates_and_headers_are_those_of_the_environment(
    collector: Collecting, tmp_path: Path, certificates: Path, protocol: str
) -> None:
    write(tmp_path / "written", 3)
    environ = {
        **BARE,
        **own(certificates),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-token=secret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.replace("http", "http/protobuf"),
    }
    with collector() as found:
        door = found.endpoint("mtls", protocol)
        command(environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": door}, tmp_path / "written")
        command(environ, tmp_path / "written", "--endpoint", door)
    assert found.arrived() == {(signal, "mtls") for signal in SIGNALS}
    for signal in SIGNALS:
        assert [each["header.x-token"] for each in found.resources(signal, "mtls")] == ["secret"] * 2
