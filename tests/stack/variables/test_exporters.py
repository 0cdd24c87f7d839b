"""Exporters other than OTLP: the console, files, Prometheus' own, none at all, and what a file declares."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

from scripts.generate import ROOT
from scripts.stack_build import binary
from scripts.stack_settings import LOOPBACK
from tests.stack.queries import fetch
from tests.stack.variables.own_collector import free_ports
from tests.stack.variables.small_run import LOSSES, SPANS, Collecting, Run, run_script
from tests.support import until


def objects(text: str) -> list[Any]:
    """Return the JSON values that stand one after the other in a text."""
    found, rest, decoder = [], text.strip(), json.JSONDecoder()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def test_the_console_shows_every_signal(run: Run, tmp_path: Path) -> None:
    done = run({f"OTEL_{signal}_EXPORTER": "console" for signal in ("TRACES", "METRICS", "LOGS")})
    shown = objects(done.out)
    assert {each["name"] for each in shown if "name" in each} >= SPANS
    assert "nissa.narrative" in {each.get("event_name") for each in shown}
    metrics, *_ = (each["resource_metrics"] for each in shown if "resource_metrics" in each)
    (loss,) = (each for each in metrics[0]["scope_metrics"][0]["metrics"] if each["name"] == "nissa.loss")
    phases = {point["attributes"]["nissa.phase"]: point["value"] for point in loss["data"]["data_points"]}
    assert phases == {"train": LOSSES[-1], "validation": 0.5}  # instruments have the latest values
    assert done.destination == "the exporters named in OTEL_*_EXPORTER"
    assert not (tmp_path / "run" / "nissa-runs").exists()


def test_none_is_none_and_several_are_several(collector: Collecting, run: Run) -> None:
    with collector() as found:
        done = run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_TRACES_EXPORTER": "otlp,otlp_json_file",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            }
        )
    assert found.arrived() == {("traces", "plain")}
    printed = [span for line in objects(done.out) for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert {span["spanId"] for span in printed} == {span.span_id for span in found.spans()}


def test_a_signal_that_is_not_named_goes_nowhere(run: Run, tmp_path: Path) -> None:
    done = run({"OTEL_LOGS_EXPORTER": "console"})
    assert all("event_name" in each for each in objects(done.out))
    assert not (tmp_path / "run" / "nissa-runs").exists()


def test_a_disabled_sdk_sends_nothing(collector: Collecting, run: Run, tmp_path: Path) -> None:
    with collector() as found:
        done = run({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint()})
    assert found.arrived() == set()
    assert done.destination == "nowhere (OTEL_SDK_DISABLED)"
    assert not (tmp_path / "run" / "nissa-runs").exists()
    assert done.err == ""


SCRAPE = """
from urllib.request import urlopen
print(urlopen("http://{host}:{port}/metrics", timeout=10).read().decode())
"""


def samples(text: str) -> dict[str, float]:
    """Return the samples of a scrape by their series, without the labels of the scope."""
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {re.sub(r',?otel_scope_\w+="[^"]*"', "", name).replace("{,", "{"): float(value) for name, _, value in rows}


def test_prometheus_is_shown_the_present(run: Run) -> None:
    (port,) = free_ports(1)
    done = run(
        {
            "OTEL_METRICS_EXPORTER": "prometheus",
            "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.2",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
        },
        within="run.flush()\n" + SCRAPE.format(host="127.0.0.2", port=port),
    )
    found = samples(done.out)
    assert found['nissa_loss{nissa_phase="train"}'] == LOSSES[-1]
    assert found['nissa_accuracy{nissa_phase="validation"}'] == 0.75
    assert found["nissa_step_duration_seconds_count{}"] == len(LOSSES) - 1
    assert found['nissa_step_duration_seconds_bucket{le="+Inf"}'] == len(LOSSES) - 1
    assert found['nissa_step_duration_seconds_bucket{le="60.0"}'] == len(LOSSES) - 1
    medians = [value for name, value in found.items() if name.startswith("nissa_gradient_quantile") and '"0.5"' in name]
    assert medians == [pytest.approx(4, rel=0.1)] * 2  # all are 4
    assert not [name for name in found if name.startswith("nissa_gradient_magnitude")]
    assert found['nissa_seed_gate_evaluations_total{nissa_gate_name="G2",nissa_gate_passed="true"}'] == 2
    assert 'nissa_run_id="run-1"' in next(name for name in found if name.startswith("target_info"))


def test_a_port_that_is_taken_fails_at_start_with_the_fix(run: Run) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = str(server.getsockname()[1])
        environ = {"OTEL_EXPORTER_PROMETHEUS_HOST": LOOPBACK, "OTEL_EXPORTER_PROMETHEUS_PORT": port}
        with pytest.raises(AssertionError, match=r"ConfigurationError.*OTEL_EXPORTER_PROMETHEUS_PORT"):
            run({"OTEL_METRICS_EXPORTER": "prometheus", **environ})


def test_the_real_prometheus_scrapes_it(run: Run, tmp_path: Path) -> None:
    if not binary("prometheus").exists():
        pytest.skip("there is no prometheus that was built")
    port, server = free_ports(2)
    target = {
        "job_name": "training",
        "scrape_interval": "200ms",
        "static_configs": [{"targets": [f"localhost:{port}"]}],
    }
    config, log = tmp_path / "prometheus.yaml", (tmp_path / "log").open("wb")
    config.write_text(yaml.safe_dump({"scrape_configs": [target]}))
    flags = [
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={LOOPBACK}:{server}",
    ]
    seen = tmp_path / "seen"
    waiting = f"import os\ndeadline = time.monotonic() + 60\nwhile not os.path.exists({str(seen)!r}) and time.monotonic() < deadline: time.sleep(0.05)"
    with log, Popen([binary("prometheus"), *flags], stderr=log) as process, ThreadPoolExecutor() as pool:
        try:
            environ = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
            running = pool.submit(run, environ, within=waiting)
            query = {"query": 'nissa_loss{nissa_phase="train",job="training"}'}

            def ask() -> Any:
                try:
                    return fetch(f"http://{LOOPBACK}:{server}/api/v1/query", **query)["data"]["result"]
                except OSError:  # it is not up yet
                    return None

            (found,) = until(ask, "the scrape")
            assert float(found["value"][1]) in LOSSES
        finally:
            seen.touch()
            process.terminate()
    running.result(90)


def shown(language: str) -> str:
    """Return the block of a language that the guide shows."""
    page = (ROOT / "docs" / "how-to" / "exporters.md").read_text()
    (block,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert isinstance(block, str)
    return block


def test_a_file_declares_everything(collector: Collecting, run: Run, tmp_path: Path) -> None:
    (tmp_path / "otel.yaml").write_text(shown("yaml"))
    with collector() as found:
        done = run(
            {
                "OTEL_CONFIG_FILE": str(tmp_path / "otel.yaml"),
                "COLLECTOR": found.endpoint(),
                "NISSA_RUN_ID": "run-1",
                "OTEL_TRACES_EXPORTER": "console",
                "OTEL_SERVICE_NAME": "not-read",
            }
        )
    assert {signal for signal, _ in found.arrived()} == {"traces", "metrics", "logs"}
    assert {span.name for span in found.spans()} >= SPANS
    for signal in ("traces", "metrics", "logs"):
        (resource, *_) = found.resources(signal)
        assert (resource["service.name"], resource["nissa.run.id"]) == ("digits", "run-1")
    assert done.destination == f"what {tmp_path}/otel.yaml describes"
    assert done.out == ""


def test_the_application_s_own_providers_are_joined(collector: Collecting, tmp_path: Path) -> None:
    with collector() as found:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(), "NISSA_CONSOLE__ENABLED": "false"}
        status, out, err = run_script(shown("py"), tmp_path, environ)
    assert (status, out) == (0, "")
    (line,) = err.splitlines()
    assert "MeterProvider through instruments" in line
    assert found.arrived() == {("traces", "plain"), ("metrics", "plain")}
    assert "seed" in {span.name for span in found.spans()}
    assert "nissa.run.id" not in found.resources("metrics")[0]
    assert sum(point.value for point in found.points("nissa.seed.count")) > 0
