"""Providers that the environment describes, in processes of their own: they are set once and for all."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import preloaded

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
assert again.tracer is found.tracer and "application" in again.origin, again
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
