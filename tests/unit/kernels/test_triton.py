"""What the kernel for CUDA alone has to show: on a device where there is one, elsewhere as Triton interprets it."""

import logging
from typing import Any

import pytest
import torch

from nissa import kernels
from nissa.kernels import reference
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.moments import Layout
from tests import preloaded
from tests.unit.kernels.agreement import DTYPES, LAYOUT, THRESHOLDS, agrees, spread

pytest.importorskip("triton", reason="torch brings Triton on Linux alone")

from nissa.kernels import device as compiled
from nissa.kernels import triton

WHERE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNK = triton._CHUNK


def assert_agrees(tensors: list[torch.Tensor]) -> None:
    agrees(triton.measure, [tensor.to(WHERE) for tensor in tensors])


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


def test_half_precision_is_unscaled_as_float32() -> None:
    values = torch.tensor([1.0, 2.0**-14], dtype=torch.float16, device=WHERE)
    packed = triton.measure([values], Layout(None), THRESHOLDS, torch.full((), 2.0**17, device=WHERE))
    assert packed[0, 10:12].cpu().view(torch.float64).tolist() == [2.0**-31, 2.0**-17]


class Counted:
    """A kernel that counts its launches."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.launches += 1
        return self.kernel[grid]


@pytest.mark.parametrize("number", [1, 12])
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

    kernel = FallbackKernel(fail, "The kernel of a test")
    with caplog.at_level(logging.WARNING, "nissa"):
        for _ in range(3):
            agrees(kernel, [spread(100)])
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel of a test failed; using the slower one, which measures the same."
    ]
    assert "ptxas fatal" in caplog.text


def test_memory_that_is_short_does_not_change_the_kernel() -> None:
    def fail(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("for the moment")

    kernel = FallbackKernel(fail, "The kernel of a test")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            kernel([spread(100)], LAYOUT, THRESHOLDS)


def test_tensors_that_nothing_can_measure_do_not_change_the_kernel(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FallbackKernel(triton.measure, "The kernel of a test")
    with pytest.raises((RuntimeError, NotImplementedError)):
        kernel([torch.ones(3).to_mkldnn()], LAYOUT, THRESHOLDS)
    assert kernel._kernel is triton.measure
    assert not caplog.records


def test_it_is_the_kernel_of_cuda() -> None:
    kernel = kernels._choose("cuda")
    assert isinstance(kernel, FallbackKernel)
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
    done = preloaded.run(["-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "nissa.kernels.reference"
    assert done.stderr.count("triton is not installed. The slower kernel is used, which measures the same.") == 1
