"""The compiled kernel against the specification."""

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import kernels
from nissa.kernels import cpu
from nissa.kernels.moments import Layout, Thresholds, decode
from tests.unit.kernels.agreement import (
    DTYPES,
    INF,
    LAYOUT,
    LAYOUTS,
    NAN,
    SHAPED,
    THRESHOLDS,
    agrees,
    edges_of,
    numbers,
    spread,
)

assert_agrees = partial(agrees, cpu.measure)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_elements_at_and_beside_every_edge_are_counted_as_specified(layout: Layout, dtype: torch.dtype) -> None:
    assert_agrees([edges_of(layout, dtype), spread(5000).to(dtype)], layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_half_precision(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    assert_agrees([every, *every.view(256, 256)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    values = [0.0, -0.0, NAN, -NAN, INF, -INF, tiny, -tiny, tiny / 2, 1e-7, 1e3, 5e-324, 2.0**-48, 2.0**16]
    each = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert_agrees([each, *each.view(-1, 1)])


@settings(deadline=None)
@given(
    st.lists(st.lists(numbers, max_size=9), max_size=5),
    st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5),
    st.sampled_from(list(LAYOUTS.values())),
    st.builds(Thresholds, st.floats(0, allow_infinity=True), st.floats(0, allow_infinity=True)),
)
def test_any_numbers_of_any_dtypes(
    rows: list[list[float]], dtypes: list[torch.dtype], layout: Layout, thresholds: Thresholds
) -> None:
    tensors = [torch.tensor(row, dtype=torch.float64).to(dtype) for row, dtype in zip(rows, dtypes, strict=False)]
    assert_agrees(tensors, layout, thresholds)


@pytest.mark.parametrize("thresholds", [Thresholds(0.0, INF), Thresholds(INF, 0.0)], ids=["none", "all"])
def test_thresholds_may_be_zero_or_infinite(thresholds: Thresholds) -> None:
    values = torch.tensor([0.0, 1.0, -3.0, INF, NAN])
    assert_agrees([values.to(dtype) for dtype in DTYPES] + [values.to_sparse()], thresholds=thresholds)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("make", SHAPED.values(), ids=SHAPED.keys())
def test_layouts_and_strides(make: Callable[[], torch.Tensor]) -> None:
    assert_agrees([spread(10), make(), spread(10).double(), make()])
    assert_agrees([make()], Layout(None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_loss_was_scaled_by_is_divided_out(dtype: torch.dtype) -> None:
    assert_agrees([spread(3000).to(dtype), torch.eye(3, dtype=dtype).to_sparse()], scale=torch.full((), 3.0))


def test_what_has_no_address_is_left_to_the_reference() -> None:
    zero = torch._efficientzerotensor((3,))
    assert zero.data_ptr() == 0
    assert_agrees([zero, spread(10)])


def test_no_tensors_make_no_rows() -> None:
    assert cpu.measure([], LAYOUT, THRESHOLDS).shape == (0, LAYOUT.width)


def test_the_same_numbers_give_the_same_bits_and_are_left_as_they_are() -> None:
    gradient = spread(400, 100).requires_grad_()
    before, state = gradient.detach().clone(), torch.get_rng_state()
    one, other = (cpu.measure([gradient, gradient.T], LAYOUT, THRESHOLDS) for _ in range(2))
    assert torch.equal(one, other)
    assert not one.requires_grad
    assert gradient._version == 0
    assert torch.equal(gradient.view(torch.int32), before.view(torch.int32))
    assert torch.equal(torch.get_rng_state(), state)


def test_sums_of_many_elements_hardly_round() -> None:
    tenths = torch.full((3_000_000,), 0.1)
    exact = math.fsum([float(np.float32(0.1))] * len(tenths))
    moments = decode(cpu.measure([tenths], LAYOUT, THRESHOLDS).numpy(), LAYOUT)
    assert abs(moments.total[0] - exact) <= 1e-13 * exact


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


def test_a_process_with_numba_compiles(tmp_path: Path) -> None:
    assert choice("", tmp_path) == ("nissa.kernels.cpu", "")
    assert kernels.kernel_for("cpu") is cpu.measure


def test_a_process_without_numba_has_the_reference_and_says_nothing(tmp_path: Path) -> None:
    absent = """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
        sys.modules["numba"] = None
    """
    assert choice(absent, tmp_path) == ("nissa.kernels.reference", "")


def test_a_numba_that_fails_is_told_once_and_costs_no_statistics(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no LLVM for this machine')")
    module, said = choice("", tmp_path)
    assert module == "nissa.kernels.reference"
    assert said.count("ImportError: no LLVM for this machine") == 1
    assert "slower one measures the same" in said


def test_without_a_folder_for_machine_code_it_is_compiled_all_the_same(tmp_path: Path) -> None:
    unwritable = """
        from numba.core.caching import CacheImpl
        CacheImpl._locator_classes = []
    """
    assert choice(unwritable, tmp_path) == ("nissa.kernels.cpu", "")


def test_importing_the_package_imports_no_compiler() -> None:
    code = "import sys, nissa, nissa.kernels; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
