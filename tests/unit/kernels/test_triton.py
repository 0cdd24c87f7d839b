"""The kernel for CUDA against the specification: on a device where there is one, elsewhere as Triton interprets it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nissa import kernels
from nissa.kernels import reference
from nissa.kernels.fallback import Contained
from nissa.kernels.moments import BucketRange, Layout, Thresholds
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

pytest.importorskip("triton", reason="torch brings Triton on Linux alone")

from nissa.kernels import device as compiled
from nissa.kernels import triton

WHERE = "cuda" if torch.cuda.is_available() else "cpu"
RANGES = {**LAYOUTS, "more buckets than programs keep to themselves": Layout(BucketRange(8))}
CHUNK = triton._CHUNK


def assert_agrees(
    tensors: list[torch.Tensor],
    layout: Layout = LAYOUT,
    thresholds: Thresholds = THRESHOLDS,
    scale: torch.Tensor | None = None,
) -> None:
    agrees(triton.measure, [tensor.to(WHERE) for tensor in tensors], layout, thresholds, scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", RANGES.values(), ids=RANGES.keys())
def test_elements_at_and_beside_every_edge_are_counted_as_specified(layout: Layout, dtype: torch.dtype) -> None:
    assert_agrees([edges_of(layout, dtype), spread(5000).to(dtype)], layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_half_precision(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    assert_agrees([every, *every.view(64, 1024)])


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
    st.sampled_from(list(RANGES.values())),
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
def test_a_tensor_may_begin_and_end_anywhere(dtype: torch.dtype) -> None:
    memory = spread(2 * CHUNK + 50).to(dtype).to(WHERE)
    sizes = [CHUNK - 9, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 1, 7, 2048, 2049]
    agrees(triton.measure, [memory[at : at + size] for at, size in enumerate(sizes)])
    agrees(triton.measure, [memory[size : size + 5] for size in range(17)])


@pytest.mark.full  # what is interpreted takes half a minute
def test_so_many_chunks_that_they_are_not_added_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_CHUNK", 2048)
    for tables in (triton._plan, triton.options):
        tables.cache_clear()
        monkeypatch.setattr(triton, tables.__name__, tables.__wrapped__)
    assert_agrees([spread(3), torch.full((520 * 2048 + 1,), 0.1, dtype=torch.float16), spread(9000)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("by", [65536.0, 3.0, 2.0**-10])
def test_what_the_loss_was_scaled_by_is_divided_out_where_it_is(dtype: torch.dtype, by: float) -> None:
    scale = torch.full((), by, device=WHERE)
    assert_agrees([spread(3000).to(dtype), torch.eye(3, dtype=dtype).to_sparse()], scale=scale)


def test_half_precision_is_unscaled_as_float32() -> None:
    values = torch.tensor([1.0, 2.0**-14], dtype=torch.float16, device=WHERE)
    packed = triton.measure([values], Layout(None), THRESHOLDS, torch.full((), 2.0**17, device=WHERE))
    assert packed[0, 10:12].cpu().view(torch.float64).tolist() == [2.0**-31, 2.0**-17]


def test_what_has_no_address_is_left_to_the_reference() -> None:
    zero = torch._efficientzerotensor((3,))
    assert zero.data_ptr() == 0
    agrees(triton.measure, [zero, spread(10)])
    assert triton.measure([torch.empty(3, device="meta")], LAYOUT, THRESHOLDS).device.type == "meta"


def test_no_tensors_make_no_rows() -> None:
    assert triton.measure([], LAYOUT, THRESHOLDS).shape == (0, LAYOUT.width)


def test_tensors_without_elements_make_rows() -> None:
    assert_agrees([torch.empty(0), torch.empty(3, 0).double()])


def test_the_same_numbers_give_the_same_bits_and_are_left_as_they_are() -> None:
    gradient = spread(400, 300).to(WHERE).requires_grad_()
    before, state = gradient.detach().clone(), torch.get_rng_state()
    one, other = (triton.measure([gradient, gradient.T, gradient[::2]], LAYOUT, THRESHOLDS) for _ in range(2))
    assert torch.equal(one, other)
    assert not one.requires_grad
    assert gradient._version == 0
    assert torch.equal(gradient.view(torch.int32), before.view(torch.int32))
    assert torch.equal(torch.get_rng_state(), state)


class Counted:
    """A kernel that counts its launches."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.launches += 1
        return self.kernel[grid]


@pytest.mark.parametrize("number", [1, 40])
def test_launches_do_not_grow_with_the_number_of_tensors(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, pack = Counted(compiled.scan), Counted(compiled.pack)
    monkeypatch.setattr(compiled, "scan", scan)
    monkeypatch.setattr(compiled, "pack", pack)
    assert_agrees([spread(i + 1).to(dtype) for i in range(number) for dtype in (torch.float32, torch.float64)])
    assert (scan.launches, pack.launches) == (2, 1)


def test_addresses_are_sent_only_where_they_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    triton._plan.cache_clear()
    first, second = ([spread(n, seed=n).to(WHERE) for n in (3, 5000)] for _ in range(2))
    second[0] += 1
    sent: list[tuple[int, ...]] = []

    def send(table: torch.Tensor, to: torch.device) -> torch.Tensor:
        sent.append(tuple(table.shape))
        return table.to(to)

    with monkeypatch.context() as patched:
        patched.setattr(reference, "send", send)
        for tensors in (first, first, second):
            packed = triton.measure(tensors, Layout(None), THRESHOLDS)
    tables = [shape for shape in sent if len(shape) == 2]
    assert tables == [(4, 2), (3, 2), (3, 2)]
    assert torch.equal(packed, triton.measure(second, Layout(None), THRESHOLDS))
    agrees(triton.measure, second, Layout(None))  # of the same shapes, elsewhere


def test_a_kernel_that_fails_is_told_once_and_costs_no_statistics(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def fail(*_: object, **__: object) -> torch.Tensor:
        tried.append(1)
        raise RuntimeError("ptxas fatal")

    kernel = Contained(fail, "The kernel of a test")
    with caplog.at_level(logging.WARNING, "nissa"):
        for _ in range(3):
            agrees(kernel, [spread(100)])
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel of a test failed; the slower one measures the same."
    ]
    assert "ptxas fatal" in caplog.text


def test_memory_that_is_short_does_not_change_the_kernel() -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("for the moment")

    kernel = Contained(fail, "The kernel of a test")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            kernel([spread(100)], LAYOUT, THRESHOLDS)


def test_tensors_that_nothing_can_measure_do_not_change_the_kernel(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Contained(triton.measure, "The kernel of a test")
    with pytest.raises((RuntimeError, NotImplementedError)):
        kernel([torch.ones(3).to_mkldnn()], LAYOUT, THRESHOLDS)
    assert kernel._kernel is triton.measure
    assert not caplog.records


def test_it_is_the_kernel_of_cuda() -> None:
    kernel = kernels._choose("cuda")
    assert isinstance(kernel, Contained)
    assert kernel._kernel is triton.measure


def test_without_triton_there_is_the_reference_and_one_line() -> None:
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
sys.modules["triton"] = None
from nissa import kernels
kernels.kernel_for("cuda")
print(kernels.kernel_for("cuda").__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "nissa.kernels.reference"
    assert done.stderr.count("There is no triton; the slower kernel measures the same.") == 1


def test_importing_the_package_imports_no_triton() -> None:
    code = "import sys, nissa, nissa.kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
