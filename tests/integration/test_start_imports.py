"""What the start of a run imports, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RARELY_USED = ("grpc", "google.protobuf", "opentelemetry.sdk._configuration", "pydantic_settings")

_START = f"""
import sys, nissa
with nissa.start(files={{"directory": sys.argv[1]}}):
    print(*(name for name in {RARELY_USED} if name in sys.modules), sep=",")
"""


@pytest.mark.parametrize(
    ("variables", "imported"),
    [
        ({}, ""),
        ({"NISSA_GRADIENTS__EVERY_N_STEPS": "3"}, "pydantic_settings"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "grpc,google.protobuf,opentelemetry.sdk._configuration"),
    ],
    ids=["files", "a setting in a variable", "an exporter of the SDK"],
)
def test_a_start_imports_what_the_run_uses(variables: dict[str, str], imported: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _START, str(tmp_path)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == imported
