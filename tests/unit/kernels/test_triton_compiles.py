"""The kernel for CUDA is compiled to machine code here, where there need not be a device: the interpreter takes more."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full  # a third of a minute

Compiled = dict[str, Any]

REGISTERS, SHARED = 65536, 160 * 1024  # of a multiprocessor with compute capability 8.0; the second in bytes


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[Compiled]:
    pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
    folder = tmp_path_factory.mktemp("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder / "cache")}
    code = [sys.executable, str(Path(__file__).with_name("compiling.py")), str(folder)]
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_variant_compiles_and_keeps_its_numbers_in_registers(compiled: list[Compiled]) -> None:
    assert len(compiled) == 17
    for each in compiled:
        assert each["local"] == each["stack"] == 0, each


def test_several_programs_fit_a_multiprocessor(compiled: list[Compiled]) -> None:
    for each in compiled:
        if each["name"] != "90 many":
            assert each["reg"] * 128 * 3 <= REGISTERS, each
        assert each["shared"] <= SHARED // 16, each


def test_numbers_are_read_sixteen_bytes_at_once(compiled: list[Compiled]) -> None:
    scans = [each for each in compiled if "pack" not in each["name"]]
    assert len(scans) == 14
    for each in scans:
        assert max(each["together"], default=0) == 16, each


def test_buckets_are_counted_in_shared_memory(compiled: list[Compiled]) -> None:
    for each in compiled:
        if "pack" not in each["name"]:
            shares = "moments" not in each["name"] and each["name"] != "90 many"
            assert bool(each["atomics"]) is shares, each
