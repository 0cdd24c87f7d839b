"""Providers that the environment describes, in processes of their own: they are set once and for all."""

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import preloaded
from tests.receivers import http_receiver

SCRIPT = """
import nissa.otel.setup as module
from nissa.config.sections import FilesConfig
from nissa.distributed.rank import Rank
from pathlib import Path

found = module.obtain(service_name="digits", run_id="r1", profile="standard", rank=Rank(), folder=Path("out"),
                      files=FilesConfig())
assert not found.owned and found.folder is None, found
with found.tracer.get_tracer("t").start_as_current_span("hello"):
    pass
again = module.obtain(service_name=None, run_id="r2", profile="standard", rank=Rank(), folder=Path("out"),
                      files=FilesConfig())
assert (again.tracer is found.tracer) == (found.built is None), again
assert found.close(5.0)
"""


def run(folder: Path, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return preloaded.run(["-c", script], cwd=folder, env={**os.environ, **environ}, timeout=60)


def test_exporters_that_the_environment_names_are_built_by_the_sdk(tmp_path: Path) -> None:
    done = run(tmp_path, SCRIPT, OTEL_TRACES_EXPORTER="console")
    assert done.returncode == 0, done.stderr
    span = json.loads(done.stdout)
    assert span["name"] == "hello"
    assert span["resource"]["attributes"]["service.name"] == "digits"
    assert span["resource"]["attributes"]["nissa.run.id"] == "r1"
    assert not (tmp_path / "out").exists()


def test_a_collector_that_is_not_there_holds_up_neither_start_nor_end(tmp_path: Path) -> None:
    ending = (
        "from time import monotonic; import os; at = monotonic(); found.close(0.2); os._exit(monotonic() - at > 50)"
    )
    script = SCRIPT.replace("assert found.close(5.0)", ending)
    done = run(tmp_path, script, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="100")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environ", "hint"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"}, "http/xml"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, "zip"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "10s"),
        ({"OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "PERHAPS"}, "PERHAPS"),
        ({"OTEL_PYTHON_METER_PROVIDER": "of_nobody", "OTEL_TRACES_EXPORTER": ""}, "OTEL_PYTHON_METER_PROVIDER"),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, "otel.yaml"),
    ],
    ids=["protocol", "compression", "timeout", "codes", "provider", "file"],
)
def test_what_the_sdk_cannot_set_up_fails_at_start_with_the_fix(
    tmp_path: Path, environ: dict[str, str], hint: str
) -> None:
    done = run(tmp_path, SCRIPT, **{"OTEL_TRACES_EXPORTER": "otlp", **environ})
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("nissa.errors.ConfigurationError", "nissa.errors.UnknownNameError"))
    assert hint in last


def test_a_configuration_file_without_the_package_that_reads_it_says_what_to_install(tmp_path: Path) -> None:
    absent = "import sys; sys.modules['opentelemetry.configuration'] = None"
    done = run(tmp_path, f"{absent}\n{SCRIPT}", OTEL_CONFIG_FILE="otel.yaml")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nissa.errors.ConfigurationError")
    assert "pip install opentelemetry-configuration" in last


SECOND = """
import nissa
for name in ("first", "second"):
    with nissa.start("minimal", run_id=name, console__enabled=False) as run:
        run.germinate("seed", blueprint="conv").cull(reason="test")
        assert run.flush(30) and run.hub.healthy
"""


def test_each_of_two_runs_of_a_process_exports_under_its_own_id(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        done = run(
            tmp_path, SECOND, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
        )
    assert (done.returncode, done.stderr) == (0, "")
    traces = [ExportTraceServiceRequest.FromString(each.plain) for each in receiver.got if each.path == "/v1/traces"]
    metrics = [
        ExportMetricsServiceRequest.FromString(each.plain) for each in receiver.got if each.path == "/v1/metrics"
    ]
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for resource in (each for request in traces for each in request.resource_spans):
        ids[_run_id(resource.resource)] |= {span.name for scope in resource.scope_spans for span in scope.spans}
    for resource in (each for request in metrics for each in request.resource_metrics):
        ids[_run_id(resource.resource)] |= {each.name for scope in resource.scope_metrics for each in scope.metrics}
    assert ids.keys() == {"first", "second"}
    assert ids["first"] == ids["second"] > {"seed", "nissa.seed.transitions"}


def _run_id(resource: Any) -> str:
    (found,) = (each.value.string_value for each in resource.attributes if each.key == "nissa.run.id")
    return str(found)
