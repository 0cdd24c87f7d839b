"""``nissa doctor``: what servers answer, what settings ask for, and what a collector counts."""

import http.client
import http.server
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from scripts.stack_build import binary
from scripts.stack_processes import answers
from scripts.stack_settings import LOOPBACK
from tests.stack.doctor.process import Doctor, server
from tests.stack.variables.own_collector import SIGNALS, OwnCollector, free_ports
from tests.support import until

SECRET = "s3cret-token"  # noqa: S105 - nobody's


def at(found: http.server.ThreadingHTTPServer) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{found.server_address[1]}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


@pytest.mark.parametrize(
    ("skew", "level", "said_of_it"),
    [(0, "ok", "agrees with ours"), (-300, "error", "5.0 min behind ours"), (10_800, "error", "3.0 h ahead of ours")],
    ids=["none", "minutes", "hours"],
)
def test_a_clock_that_differs_is_found(doctor: Doctor, skew: int, level: str, said_of_it: str) -> None:
    with server(200, skew=skew, headers={"Content-Type": "application/x-protobuf"}) as found:
        said = doctor(environ=at(found))
    assert said_of_it in said.only("clock", level)["found"]
    assert said.status == (1 if level == "error" else 0)


@pytest.mark.parametrize(
    ("status", "headers", "found", "advice"),
    [
        (401, {}, "refuses us (401", "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, {}, "takes no", "no OTLP receiver"),
        (503, {}, "does not take exports now (503", "collector's log"),
        (302, {"Location": "https://login.example/"}, "redirects to https://login.example/", "OTLP_ENDPOINT"),
    ],
    ids=["unauthorised", "missing", "busy", "redirect"],
)
def test_what_a_server_answers_is_explained(
    doctor: Doctor, status: int, headers: dict[str, str], found: str, advice: str
) -> None:
    with server(status, headers=headers) as listening:
        said = doctor(environ=at(listening))
    assert said.status == 1
    problems = said.findings("endpoint", "error")
    assert all(found in each["found"] and advice in each["advice"] for each in problems)
    assert {signal for each in problems for signal in each["signals"]} == set(SIGNALS)


def test_a_server_that_says_yes_to_everything_is_no_receiver(doctor: Doctor) -> None:
    with server(200, headers={"Content-Type": "text/plain"}) as found:
        said = doctor(environ=at(found))
    assert "not as an OTLP receiver does" in said.only("endpoint", "warning")["found"]


def test_a_web_page_is_no_receiver(doctor: Doctor) -> None:
    with server(200, headers={"Content-Type": "text/html"}) as found:
        said = doctor(environ=at(found))
    assert said.status == 1
    assert "answers with a web page" in said.only("endpoint", "error")["found"]


def test_headers_are_sent_and_never_shown(doctor: Doctor) -> None:
    with server(401) as found:
        address = f"http://user:{SECRET}-too@{LOOPBACK}:{found.server_address[1]}?api_key={SECRET}-key"
        environ = {
            **at(found),
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET},x-team=vision",
        }
        for json_output in (True, False):
            said = doctor(environ=environ, json_output=json_output)
            assert SECRET not in said.out + said.err
            assert said.status == 1
        sent = found.probed[0]  # type: ignore[attr-defined]
    assert sent["x-team"] == "vision"


def test_headers_that_cannot_be_sent_are_a_finding_and_stay_hidden(doctor: Doctor, collector: OwnCollector) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint(),
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key=%C3%A9{SECRET}",
    }
    said = doctor(environ=environ)
    assert said.status == 1
    assert "gRPC cannot send the header 'x-key'" in said.only("endpoint", "error")["found"]
    assert SECRET not in said.out + said.err


def test_what_a_file_declares_is_tried_too(doctor: Doctor, collector: OwnCollector, tmp_path: Path) -> None:
    (closed,) = free_ports(1)

    def exporter(endpoint: str) -> dict[str, object]:
        return {"otlp_grpc": {"endpoint": endpoint, "tls": {"insecure": True}}}

    file = tmp_path / "otel.yaml"
    declared = {
        "file_format": "1.0",
        "tracer_provider": {"processors": [{"batch": {"exporter": exporter(collector.endpoint())}}]},
        "meter_provider": {"readers": [{"periodic": {"exporter": exporter(f"http://{LOOPBACK}:{closed}")}}]},
    }
    file.write_text(yaml.safe_dump(declared))
    said = doctor(environ={"OTEL_CONFIG_FILE": str(file)})
    assert said.status == 1
    assert said.only("endpoint", "ok")["signals"] == ["traces"]
    assert said.only("endpoint", "error")["signals"] == ["metrics"]
    assert "through instruments" in said.only("metrics", "note")["found"]


@pytest.mark.parametrize(
    ("environ", "said_of_it"),
    [
        ({"OTEL_TRACES_EXPORTER": "otpl"}, "otpl"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/jsno"}, "http/jsno"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "zstd"),
        ({"NISSA_PROFILE": "luxury"}, "luxury"),
    ],
    ids=["exporter", "protocol", "compression", "profile"],
)
def test_what_would_fail_at_start_is_a_finding(doctor: Doctor, environ: dict[str, str], said_of_it: str) -> None:
    said = doctor(environ=environ)
    assert said.status == 1
    assert said_of_it in json.dumps([each for each in said.report["findings"] if each["level"] == "error"])


def test_nothing_configured_is_fine_and_leaves_nothing_behind(doctor: Doctor, tmp_path: Path) -> None:
    said = doctor()
    assert said.status == 0
    assert said.findings("files", "ok")
    assert "the run's own pipeline" in said.only("metrics", "ok")["found"]
    assert not (tmp_path / "doctor" / "nissa-runs").exists()


def test_a_provider_that_pulls_is_told(doctor: Doctor) -> None:
    (port,) = free_ports(1)
    environ = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
    said = doctor(environ=environ)
    assert said.status == 0, said.out
    assert "through instruments" in said.only("metrics", "note")["found"]


_SPAN = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "x", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}


@contextmanager
def losing_collector(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Run a collector whose backend is away; yield its ports for OTLP over HTTP, health and counters."""
    otlp, health, counters, away = free_ports(4)
    backend = {"endpoint": f"{LOOPBACK}:{away}", "tls": {"insecure": True}, "retry_on_failure": {"enabled": False}}
    shown = {"prometheus": {"host": LOOPBACK, "port": counters}}
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{LOOPBACK}:{otlp}"}}}},
        "exporters": {"otlp_grpc": backend},
        "extensions": {"health_check": {"endpoint": f"{LOOPBACK}:{health}"}},
        "service": {
            "extensions": ["health_check"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_grpc"]}},
            "telemetry": {"metrics": {"readers": [{"pull": {"exporter": shown}}]}},
        },
    }
    folder.mkdir()
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([binary("collector"), f"--config={path}"], stderr=log) as process,
    ):
        try:
            until(lambda: process.poll() is not None or answers(health, "/"), "the collector")
            assert process.poll() is None, (folder / "log").read_text()
            yield otlp, health, counters
        finally:
            process.terminate()
            process.wait(30)


def send_a_span(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [_SPAN]}]}]})
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.usefixtures("collector")  # which is built by then
def test_what_a_real_collector_lost_and_does_not_take_is_told(doctor: Doctor, tmp_path: Path) -> None:
    with losing_collector(tmp_path / "losing") as (otlp, health, counters):
        told = ["--endpoint", f"http://{LOOPBACK}:{otlp}", "--protocol", "http/protobuf"]
        told += ["--health", f"http://{LOOPBACK}:{health}/", "--counters", f"http://{LOOPBACK}:{counters}/metrics"]
        calm = doctor(*told)
        send_a_span(otlp)
        lossy = until(lambda: said if (said := doctor(*told)).findings("collector", "warning") else None, "the loss")
    assert [each["found"] for each in calm.findings("collector", "warning")] == []
    assert "nothing lost" in calm.findings("collector", "ok")[1]["found"]
    assert "1 spans were not delivered" in lossy.only("collector", "warning")["found"]
    refused = {signal for each in calm.findings("endpoint", "error") for signal in each["signals"]}
    assert refused == {"metrics", "logs"}, "it has a pipeline for traces only"
