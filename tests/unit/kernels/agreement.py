"""Numbers that kernels are tried with, and what it means that one agrees with the specification."""

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import strategies as st

from nissa.kernels import Kernel, reference
from nissa.kernels.moments import BucketRange, Layout, Thresholds, decode

LAYOUT, THRESHOLDS = Layout(), Thresholds()
NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = {
    "default": LAYOUT,
    "moments only": Layout(None),
    "coarse": Layout(BucketRange(-2, -8, 8)),
    "fine": Layout(BucketRange(8, -2, 2)),
    "among subnormals of float32": Layout(BucketRange(3, -160, 16)),
    "float32 that is normal": Layout(BucketRange(1, -126, 127)),
    "to the end of float32 and beyond": Layout(BucketRange(2, -126, 130)),
    "coarser buckets outside": Layout(BucketRange(2, -8, 8, within=BucketRange(-1, -20, 40))),
    "many buckets and coarser ones outside": Layout(BucketRange(8, -12, 8, within=BucketRange(-2, -140, 40))),
    "all of float64": Layout(BucketRange(0, -1022, 1023)),
    "more buckets than programs on CUDA keep to themselves": Layout(BucketRange(8)),
}
EXACT = (
    "count nonfinite zeros vanishing exploding underflow overflow minimum maximum abs_max".split()  # noqa: SIM905
)


def agrees(
    measure: Kernel,
    tensors: list[torch.Tensor],
    layout: Layout = LAYOUT,
    thresholds: Thresholds = THRESHOLDS,
    scale: torch.Tensor | None = None,
) -> None:
    """Assert that a kernel finds what the reference does: counts and extremes exactly, sums to rounding."""
    found = decode(measure(tensors, layout, thresholds, scale).cpu().numpy(), layout)
    expected = decode(reference.measure(tensors, layout, thresholds, scale).cpu().numpy(), layout)
    for name in EXACT:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    if found.buckets is not None and expected.buckets is not None:
        np.testing.assert_array_equal(found.buckets, expected.buckets)
    added = np.nan_to_num(expected.abs_total)
    assert np.all(np.abs(found.total - expected.total) <= 1e-12 * added)
    np.testing.assert_allclose(found.abs_total, expected.abs_total, rtol=1e-12)
    np.testing.assert_allclose(found.sum_of_squares, expected.sum_of_squares, rtol=1e-12)


def spread(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * torch.exp2(torch.randn(shape, generator=generator) * 12)
    odd = torch.rand(shape, generator=generator)
    return values.masked_fill(odd < 0.06, 0.0).masked_fill(odd < 0.04, NAN).masked_fill(odd < 0.02, -INF)


def edges_of(layout: Layout, dtype: torch.dtype) -> torch.Tensor:
    """The bounds and thresholds as the dtype holds them, and their neighbours, of both signs."""
    bounds = layout.buckets.boundaries() if layout.buckets else np.empty(0)
    exact = np.concatenate((bounds, [THRESHOLDS.vanishing, THRESHOLDS.exploding]))
    wide = np.concatenate((exact, np.nextafter(exact, 0), np.nextafter(exact, INF)))
    near = torch.from_numpy(wide).to(dtype)
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    bits = near.view(integers)
    beside = torch.cat((near, (bits + 1).view(dtype), (bits - 1).clamp(min=0).view(dtype)))
    beside = beside[beside.double().abs() < 1e150]  # whose squares are finite
    return torch.cat((beside, -beside))


numbers = st.floats(-1e100, 1e100) | st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e-7, 1e3, 5e-324])


SHAPED: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: spread(300, 200).T,
    "every other column": lambda: spread(70, 50)[:, ::2],
    "every other element": lambda: spread(600_001)[::2],
    "a long and strided inner dimension": lambda: spread(3, 40000, 2)[..., 0],
    "channels last": lambda: spread(8, 16, 30, 30).to(memory_format=torch.channels_last),
    "expanded": lambda: spread(1, 50).expand(9000, 50),
    "overlapping": lambda: spread(100).unfold(0, 10, 3),
    "an offset view": lambda: spread(100)[7:],
    "a scalar": lambda: torch.tensor(3.0),
    "empty": lambda: torch.empty(3, 0, 2),
    "no memory order": lambda: spread(4, 6, 5).permute(1, 2, 0),
    "complex": lambda: torch.view_as_complex(spread(40, 2)),
    "conjugate": lambda: torch.view_as_complex(spread(40, 2)).conj(),
    "negative": lambda: torch.view_as_complex(spread(40, 2)).conj().imag,
    "sparse": lambda: spread(30, 20).relu().to_sparse(),
    "sparse without an element": lambda: torch.zeros(4, 4).to_sparse(),
    "sparse complex": lambda: torch.tensor([0j, 1 + 2j, 0j]).to_sparse(),
    "compressed rows": lambda: spread(30, 20).relu().to_sparse_csr(),
}
