"""What the compiled kernel for the CPU alone has to show, and how it is chosen."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from nissa import kernels
from nissa.kernels import cpu
from nissa.kernels.moments import decode
from tests.unit.kernels.agreement import DTYPES, LAYOUT, THRESHOLDS, agrees, edges_of


def test_sums_of_many_elements_hardly_round() -> None:
    tenths = torch.full((3_000_000,), 0.1)
    exact = math.fsum([float(np.float32(0.1))] * len(tenths))
    moments = decode(cpu.measure([tenths], LAYOUT, THRESHOLDS).numpy(), LAYOUT)
    assert abs(moments.total[0] - exact) <= 1e-13 * exact


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_may_begin_anywhere_and_be_any_number(dtype: torch.dtype) -> None:
    whole = torch.cat((edges_of(LAYOUT, dtype), torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)))
    for first in range(4):
        for size in range(1, 6):
            agrees(cpu.measure, [whole[first : first + size], whole[len(whole) - first - size :]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_left_out_wherever_it_is(dtype: torch.dtype) -> None:
    for place in (0, 1, 2047, 2048, 4999):
        numbers = torch.linspace(-3, 5, 5000).to(dtype)
        numbers[place] = math.inf if place % 2 else -math.nan
        agrees(cpu.measure, [numbers, -numbers])


def choice(preamble: str, folder: Path, **environ: str) -> tuple[str, str]:
    """The module of the kernel that a new process chooses, and what it says."""
    code = f"{textwrap.dedent(preamble)}\nfrom nissa import kernels\nkernels.kernel_for('cpu')\nprint(kernels.kernel_for('cpu').__module__)"
    code += "\nassert kernels.kernel_for('mps').__module__.endswith('reference')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def test_a_process_has_the_compiled_kernel(tmp_path: Path) -> None:
    assert choice("", tmp_path) == ("nissa.kernels.cpu", "")
    assert kernels.kernel_for("cpu") is cpu.measure


def test_without_c_functions_there_is_the_reference_and_one_line(tmp_path: Path) -> None:
    absent = """
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "nissa.kernels._native" else find(name, *rest)
    """
    module, said = choice(absent, tmp_path)
    assert module == "nissa.kernels.reference"
    assert said.count("Nissa was installed without a C compiler; install one and reinstall Nissa.") == 1
    assert "Traceback" not in said


def test_functions_that_cannot_be_loaded_are_told_once_and_cost_no_statistics(tmp_path: Path) -> None:
    (tmp_path / "_native.so").write_text("for another machine")
    broken = f"""
        import importlib.util, types
        find = importlib.util.find_spec
        broken = types.SimpleNamespace(origin={str(tmp_path / "_native.so")!r})
        importlib.util.find_spec = lambda name, *rest: broken if name == "nissa.kernels._native" else find(name, *rest)
    """
    module, said = choice(broken, tmp_path)
    assert module == "nissa.kernels.reference"
    assert said.count("OSError: ") == 1
    assert "slower one, which measures the same" in said


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals_have_their_own_buckets_beside_anything(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    beside = torch.tensor([0.0, tiny, -tiny, 1.0, 2.0, math.inf], dtype=dtype)
    subnormals = torch.arange(1, 200, dtype=dtype) * torch.finfo(dtype).smallest_normal / 256
    for first in (0, 1, 5):
        agrees(
            cpu.measure,
            [torch.cat((beside[first:], subnormals, -subnormals)), subnormals[:1], torch.zeros(2000, dtype=dtype)],
        )
