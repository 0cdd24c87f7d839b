import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nissa import kernels
from nissa.kernels import reference
from nissa.kernels.edges import Edges
from nissa.kernels.moments import BucketRange, Layout, Moments, Thresholds, decode
from nissa.kernels.reference import measure

LAYOUT = Layout()
THRESHOLDS = Thresholds()
NAN, INF = float("nan"), float("inf")


def moments_of(*tensors: torch.Tensor, layout: Layout = LAYOUT, thresholds: Thresholds = THRESHOLDS) -> Moments:
    return decode(measure(tensors, layout, thresholds).numpy(), layout)


def assert_row_covers(moments: Moments, row: int, values: NDArray[Any]) -> None:
    """The row holds exactly what numpy finds in the values, given as float64."""
    finite = values[np.isfinite(values)]
    magnitudes = np.abs(finite)
    counts = {
        "count": values.size,
        "nonfinite": values.size - finite.size,
        "zeros": (finite == 0).sum(),
        "vanishing": (magnitudes < THRESHOLDS.vanishing).sum(),
        "exploding": (magnitudes > THRESHOLDS.exploding).sum(),
    }
    if moments.bucket_range:
        bounds = moments.bucket_range.boundaries()
        counts["underflow"] = ((magnitudes > 0) & (magnitudes <= bounds[0])).sum()
        counts["overflow"] = (magnitudes > bounds[-1]).sum()
    assert {name: getattr(moments, name)[row] for name in counts} == counts
    extremes = [finite.min(), finite.max(), magnitudes.max()] if finite.size else [NAN] * 3
    np.testing.assert_array_equal([moments.minimum[row], moments.maximum[row], moments.abs_max[row]], extremes)
    sums = [finite.sum(), magnitudes.sum(), np.square(finite).sum()]
    tolerance = 1e-12 * (magnitudes.sum() + 1)
    found = [moments.total[row], moments.abs_total[row], moments.sum_of_squares[row]]
    np.testing.assert_allclose(found, sums, rtol=1e-12, atol=tolerance)


def assert_adds_up(moments: Moments) -> None:
    assert moments.buckets is not None
    parts = moments.zeros + moments.nonfinite + moments.underflow + moments.overflow + moments.buckets.sum(axis=1)
    assert moments.count.tolist() == parts.tolist()


def spread(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers over many octaves, some of them zero or not finite."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * torch.exp2(torch.randn(shape, generator=generator) * 12)
    odd = torch.rand(shape, generator=generator)
    return values.masked_fill(odd < 0.06, 0.0).masked_fill(odd < 0.04, NAN).masked_fill(odd < 0.02, -INF)


dtypes = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])
special = st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e-7, 1e3, 5e-324])
lists = st.lists(st.lists(st.floats(-1e6, 1e6) | special, max_size=8), max_size=5)


@given(lists, dtypes)
def test_statistics_are_those_that_numpy_finds(rows: list[list[float]], dtype: torch.dtype) -> None:
    tensors = [torch.tensor(row, dtype=torch.float64).to(dtype) for row in rows]
    moments = moments_of(*tensors)
    assert len(moments) == len(rows)
    assert_adds_up(moments)
    for row, tensor in enumerate(tensors):
        assert_row_covers(moments, row, tensor.double().numpy())


@pytest.mark.parametrize(
    "layout", [LAYOUT, Layout(None), Layout(BucketRange(-2, -8, 8)), Layout(BucketRange(8, -2, 2))]
)
def test_tensors_of_every_size_can_be_measured_together(layout: Layout) -> None:
    sizes = [1, 255, 0, 256, 257, 32512, 7, 32513, 70000, 0]
    tensors = [spread(size, seed=size) for size in sizes]
    together = measure(tensors, layout, THRESHOLDS)
    moments = decode(together.numpy(), layout)
    for row, tensor in enumerate(tensors):
        assert_row_covers(moments, row, tensor.double().numpy())
        # Counts are the same to the last one; sums may have been added up in another order.
        alone = moments_of(tensor, layout=layout)
        if moments.buckets is not None and alone.buckets is not None:
            assert moments.buckets[row].tolist() == alone.buckets[0].tolist()


def test_many_small_tensors_agree_with_each_on_its_own_bit_for_bit() -> None:
    tensors = [spread(size, seed=size) for size in range(0, 1200, 17)]
    one_by_one = torch.cat([measure([tensor], LAYOUT, THRESHOLDS) for tensor in tensors])
    assert torch.equal(measure(tensors, LAYOUT, THRESHOLDS), one_by_one)


@given(
    st.lists(st.floats(0, allow_infinity=True) | st.sampled_from([1e-7, 1e3, NAN]), max_size=30),
    st.none() | st.builds(BucketRange, st.integers(-2, 8)),
    st.builds(Thresholds, st.floats(0, allow_infinity=True), st.floats(0, allow_infinity=True)),
)
def test_the_table_lookup_is_bucketize(values: list[float], span: BucketRange | None, thresholds: Thresholds) -> None:
    slots = reference._slots(Layout(span), thresholds, torch.device("cpu"))
    edges = Edges(Layout(span), thresholds).values
    magnitudes = torch.tensor([*values, *edges, *np.nextafter(edges[:-1], np.inf), INF], dtype=torch.float64)
    expected = torch.bucketize(magnitudes, torch.from_numpy(edges))
    # Infinity has no edge above it, and NaN is put behind all of them, too.
    assert slots.of(magnitudes).tolist() == expected.tolist()


def test_counts_above_the_integers_of_float32_are_exact() -> None:
    many = torch.tensor([0.5]).expand(2**24 + 3)
    moments = moments_of(many, torch.zeros(5))
    assert moments.buckets is not None
    assert moments.count.tolist() == [2**24 + 3, 5]
    assert moments.buckets.sum(axis=1).tolist() == [2**24 + 3, 0]
    assert moments.total.tolist() == [(2**24 + 3) / 2, 0]


def test_thresholds_are_compared_in_float64() -> None:
    # The float32 nearest to 1e-7 is above it, the one nearest to 0.1 too; neither is the threshold itself.
    near = torch.tensor([1e-7, 0.1], dtype=torch.float32)
    moments = moments_of(near, thresholds=Thresholds(vanishing=1e-7, exploding=0.1))
    assert (moments.vanishing.tolist(), moments.exploding.tolist()) == ([0], [1])


def test_an_element_at_a_threshold_neither_vanishes_nor_explodes() -> None:
    at = torch.tensor([1e-7, 1e3, -1e-7, -1e3], dtype=torch.float64)
    beside = torch.tensor([np.nextafter(1e-7, 0), np.nextafter(1e3, 2e3)], dtype=torch.float64)
    moments = moments_of(at, beside)
    assert (moments.vanishing.tolist(), moments.exploding.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("layout", [LAYOUT, Layout(None)])
def test_thresholds_may_be_zero_or_infinite(layout: Layout) -> None:
    values = torch.tensor([0.0, 1.0, torch.finfo(torch.float64).max, INF, NAN], dtype=torch.float64)
    none = moments_of(values, layout=layout, thresholds=Thresholds(vanishing=0.0, exploding=INF))
    everything = moments_of(values, layout=layout, thresholds=Thresholds(vanishing=INF, exploding=0.0))
    assert (none.vanishing.tolist(), none.exploding.tolist()) == ([0], [0])
    assert (everything.vanishing.tolist(), everything.exploding.tolist()) == ([3], [2])


@pytest.mark.parametrize("length", [1, 7, 64])
def test_a_nan_of_either_sign_is_not_finite(length: int) -> None:
    negative = torch.full((length,), -1, dtype=torch.int64).view(torch.float64)
    assert moments_of(negative, negative.float()).nonfinite.tolist() == [length] * 2


def test_without_buckets_nothing_is_counted_beyond_them() -> None:
    moments = moments_of(torch.tensor([1e-30, 1e30]), layout=Layout(None))
    assert (moments.underflow.tolist(), moments.overflow.tolist(), moments.buckets) == ([0], [0], None)


def test_no_tensors_make_no_rows() -> None:
    assert measure([], LAYOUT, THRESHOLDS).shape == (0, LAYOUT.width)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_empty_tensors_and_scalars_are_rows_like_any_other(shape: tuple[int, ...]) -> None:
    moments = moments_of(torch.ones(shape), spread(9))
    assert moments.count.tolist() == [int(np.prod(shape)), 9]
    assert_row_covers(moments, 0, np.ones(shape).reshape(-1))


STRIDED: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: spread(300, 200).T,
    "every other column": lambda: spread(300, 301)[:, ::2],
    "every other element": lambda: spread(90001)[::2],
    "a long and strided inner dimension": lambda: spread(3, 40000, 2)[..., 0],
    "channels last": lambda: spread(8, 16, 30, 30).to(memory_format=torch.channels_last),
    "expanded": lambda: spread(1, 50).expand(2000, 50),
    "a small transposed one": lambda: spread(5, 7).T,
    "an offset view": lambda: spread(100)[7:],
}


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED.keys())
def test_strides_do_not_matter(make: Callable[[], torch.Tensor]) -> None:
    tensor = make()
    moments = moments_of(spread(10), tensor, spread(10))
    assert_row_covers(moments, 1, tensor.double().contiguous().view(-1).numpy())


def test_no_piece_is_larger_than_a_chunk_and_none_is_lost() -> None:
    for make in STRIDED.values():
        pieces = list(reference._pieces(make(), 1000))
        assert max(piece.numel() for piece in pieces) <= 1000
        assert sum(piece.numel() for piece in pieces) == make().numel()


def test_complex_elements_are_their_real_and_imaginary_parts() -> None:
    real = spread(40, 2)
    value = torch.view_as_complex(real)
    moments = moments_of(value, value.conj(), value[::2].imag)
    assert_row_covers(moments, 0, real.double().view(-1).numpy())
    assert_row_covers(moments, 1, (real.double() * torch.tensor([1.0, -1.0])).view(-1).numpy())
    assert_row_covers(moments, 2, real[::2, 1].double().numpy())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("to", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
def test_the_implicit_zeros_of_a_sparse_tensor_count(to: Callable[[torch.Tensor], torch.Tensor]) -> None:
    dense = spread(30, 20).masked_fill(torch.arange(30)[:, None] % 3 > 0, 0.0)
    moments = moments_of(to(dense), to(torch.zeros(4, 4)))
    assert_row_covers(moments, 0, dense.double().view(-1).numpy())
    assert_row_covers(moments, 1, np.zeros(16))
    assert_adds_up(moments)


def test_implicit_zeros_count_among_the_extremes() -> None:
    moments = moments_of(torch.tensor([0.0, 2.0, 3.0]).to_sparse(), torch.tensor([-1.0, 0.0]).to_sparse())
    assert (moments.minimum.tolist(), moments.maximum.tolist()) == ([0.0, -1.0], [3.0, 0.0])
    assert moments.zeros.tolist() == [1, 1]


def test_duplicates_in_a_sparse_tensor_are_added_up_before_they_are_measured() -> None:
    embedding = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 4]]), torch.tensor([[1.0, 2.0], [-1.0, 3.0], [7.0, 0.0]]), (6, 2), check_invariants=True
    )
    dense = embedding.to_dense().double().view(-1).numpy()
    assert_row_covers(moments_of(embedding), 0, dense)
    assert not embedding.is_coalesced()


def test_a_sparse_complex_tensor_has_two_zeros_for_each_implicit_element() -> None:
    value = torch.tensor([0j, 1 + 2j, 0j]).to_sparse()
    moments = moments_of(value)
    assert (moments.count.tolist(), moments.zeros.tolist()) == ([6], [4])


def test_dtypes_can_be_mixed() -> None:
    tensors = [spread(100).to(dtype) for dtype in (torch.float16, torch.float64, torch.bfloat16, torch.float32)]
    moments = moments_of(*tensors)
    for row, tensor in enumerate(tensors):
        assert_row_covers(moments, row, tensor.double().numpy())


def test_sums_of_half_precision_neither_round_nor_overflow() -> None:
    moments = moments_of(torch.full((5000,), 60000.0, dtype=torch.float16))
    assert (moments.total.tolist(), moments.sum_of_squares.tolist()) == ([5000 * 60000.0], [5000 * 60000.0**2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_scale_is_divided_out_with_the_precision_of_float32_at_least(dtype: torch.dtype) -> None:
    values, scale = spread(3000).to(dtype), torch.full((1,), 3.0 * 2**20)  # more than float16 can hold
    wide = values if dtype is torch.float64 else values.float()
    measured = measure([values, values.view(3, 1000)], LAYOUT, THRESHOLDS, scale)
    assert torch.equal(measured, measure([wide / scale[0], (wide / scale[0]).view(3, 1000)], LAYOUT, THRESHOLDS))


def test_measuring_changes_neither_its_input_nor_random_numbers() -> None:
    gradient = spread(400, 100).requires_grad_()
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.tensor([1.0, 2.0]), (4,), check_invariants=True)
    before, state = gradient.detach().clone(), torch.get_rng_state()
    measured = measure([gradient, gradient.T, sparse], LAYOUT, THRESHOLDS)
    assert not measured.requires_grad
    assert gradient.requires_grad
    assert gradient.grad is None
    assert gradient._version == 0
    assert sparse._values().tolist() == [1.0, 2.0]
    assert torch.equal(gradient.view(torch.int32), before.view(torch.int32))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_waits_for_the_device() -> None:
    # A meta tensor has no data, so that reading any of it on the host raises.
    tensors = [torch.empty(3_000_000), torch.empty(30, 20).T, torch.empty(3, dtype=torch.complex64), torch.empty(0)]
    measured = measure([tensor.to("meta") for tensor in tensors], LAYOUT, THRESHOLDS)
    assert measured.shape == (4, LAYOUT.width)


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode",
    [
        lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        deterministic_algorithms,
        float64_by_default,
    ],
    ids=["another default device", "autocast", "inference", "deterministic", "another default dtype"],
)
def test_modes_that_the_caller_has_set_change_nothing(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    tensors = [spread(3000), spread(20, 30).T, spread(4).to_sparse()]
    expected = measure(tensors, LAYOUT, THRESHOLDS)
    reference._slots.cache_clear()
    with mode():
        measured = measure(tensors, LAYOUT, THRESHOLDS)
    assert measured.device == expected.device
    assert torch.equal(measured, expected)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, nissa.kernels, nissa.kernels.moments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_device_type_without_a_kernel_of_its_own_gets_the_reference() -> None:
    assert kernels.kernel_for("mps") is measure


def test_a_test_can_force_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*_: object, **__: object) -> torch.Tensor:
        return torch.empty(0)

    monkeypatch.setitem(kernels._CHOSEN, "cpu", fake)
    assert kernels.kernel_for("cpu") is fake
