"""Every compiled kernel against the specification; that for CUDA on a device, or else as Triton interprets it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa.kernels import Kernel
from nissa.kernels.moments import Layout, Thresholds
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


@dataclass(frozen=True)
class Tried:
    """A kernel that is tried.

    Args:
        measure: The kernel.
        device: Where it measures.
        rows: How many tensors the numbers of half precision make besides one with all: an interpreter takes its time.
    """

    measure: Kernel
    device: str
    rows: int

    def agrees(
        self,
        tensors: list[torch.Tensor],
        layout: Layout = LAYOUT,
        thresholds: Thresholds = THRESHOLDS,
        scale: torch.Tensor | None = None,
    ) -> None:
        """Assert that it finds what the reference does, on its device."""
        there = [tensor.to(self.device) for tensor in tensors]
        agrees(self.measure, there, layout, thresholds, None if scale is None else scale.to(self.device))


@pytest.fixture(scope="module", params=["cpu", "triton"])
def kernel(request: pytest.FixtureRequest) -> Tried:
    if request.param == "cpu":
        return Tried(import_module("nissa.kernels.cpu").measure, "cpu", 256)
    pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
    measure = import_module("nissa.kernels.triton").measure
    return Tried(measure, "cuda" if torch.cuda.is_available() else "cpu", 64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_elements_at_and_beside_every_edge_are_counted_as_specified(
    kernel: Tried, layout: Layout, dtype: torch.dtype
) -> None:
    kernel.agrees([edges_of(layout, dtype), spread(5000).to(dtype)], layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_half_precision(kernel: Tried, dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    kernel.agrees([every, *every.view(kernel.rows, -1)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(kernel: Tried, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    values = [0.0, -0.0, NAN, -NAN, INF, -INF, tiny, -tiny, tiny / 2, 1e-7, 1e3, 5e-324, 2.0**-48, 2.0**16]
    each = torch.tensor(values, dtype=torch.float64).to(dtype)
    kernel.agrees([each, *each.view(-1, 1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_every_octave_of_small_and_large_numbers(kernel: Tried, dtype: torch.dtype) -> None:
    octaves = torch.arange(-149, 128, dtype=torch.float64).exp2()
    values = torch.cat((octaves, -octaves * 1.4, torch.zeros(5), octaves[:30] * 3)).to(dtype)
    kernel.agrees([values, values[7:], spread(2100).to(dtype), values.repeat(4)])


@settings(deadline=None)
@given(
    st.lists(st.lists(numbers, max_size=9), max_size=5),
    st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5),
    st.sampled_from(list(LAYOUTS.values())),
    st.builds(Thresholds, st.floats(0, allow_infinity=True), st.floats(0, allow_infinity=True)),
)
def test_any_numbers_of_any_dtypes(
    kernel: Tried, rows: list[list[float]], dtypes: list[torch.dtype], layout: Layout, thresholds: Thresholds
) -> None:
    tensors = [torch.tensor(row, dtype=torch.float64).to(dtype) for row, dtype in zip(rows, dtypes, strict=False)]
    kernel.agrees(tensors, layout, thresholds)


@pytest.mark.parametrize("thresholds", [Thresholds(0.0, INF), Thresholds(INF, 0.0)], ids=["none", "all"])
def test_thresholds_may_be_zero_or_infinite(kernel: Tried, thresholds: Thresholds) -> None:
    values = torch.tensor([0.0, 1.0, -3.0, INF, NAN])
    kernel.agrees([values.to(dtype) for dtype in DTYPES] + [values.to_sparse()], thresholds=thresholds)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("make", SHAPED.values(), ids=SHAPED.keys())
def test_layouts_and_strides(kernel: Tried, make: Callable[[], torch.Tensor]) -> None:
    kernel.agrees([spread(10), make(), spread(10).double(), make()])
    kernel.agrees([make()], Layout(None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("by", [65536.0, 3.0, 2.0**-10])
def test_what_the_loss_was_scaled_by_is_divided_out(kernel: Tried, dtype: torch.dtype, by: float) -> None:
    kernel.agrees([spread(3000).to(dtype), torch.eye(3, dtype=dtype).to_sparse()], scale=torch.full((), by))


def test_what_has_no_address_is_left_to_the_reference(kernel: Tried) -> None:
    zero = torch._efficientzerotensor((3,))
    assert zero.data_ptr() == 0
    agrees(kernel.measure, [zero, spread(10)])
    assert kernel.measure([torch.empty(3, device="meta")], LAYOUT, THRESHOLDS).device.type == "meta"


def test_no_tensors_make_no_rows(kernel: Tried) -> None:
    assert kernel.measure([], LAYOUT, THRESHOLDS).shape == (0, LAYOUT.width)


def test_tensors_without_elements_make_rows(kernel: Tried) -> None:
    kernel.agrees([torch.empty(0), torch.empty(3, 0).double()])


def test_the_same_numbers_give_the_same_bits_and_are_left_as_they_are(kernel: Tried) -> None:
    gradient = spread(400, 300).to(kernel.device).requires_grad_()
    before, state = gradient.detach().clone(), torch.get_rng_state()
    one, other = (kernel.measure([gradient, gradient.T, gradient[::2]], LAYOUT, THRESHOLDS) for _ in range(2))
    assert torch.equal(one, other)
    assert not one.requires_grad
    assert gradient._version == 0
    assert torch.equal(gradient.view(torch.int32), before.view(torch.int32))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("compiler", ["nissa.kernels.native", "triton"])
def test_importing_the_package_imports_no_compiler(compiler: str) -> None:
    code = f"import sys, nissa, nissa.kernels; sys.exit({compiler!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
