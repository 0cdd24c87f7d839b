"""Digests of weights: equal among all kernels, and different for every change that matters."""

from itertools import pairwise
from math import nan

import pytest
import torch
from torch import Tensor

from nissa.kernels import _CHOSEN, kernel_for, reference
from nissa.kernels.digest import digests
from nissa.kernels.digest_reference import digests_by_torch, stored_bits

ALL_BITS = 2**64 - 1
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MORE = (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)


def expected(tensor: Tensor) -> int:
    """Return the digest by numbers of Python, which neither wrap nor repeat a sign."""

    def mixed(lane: int) -> int:
        lane = ((lane ^ (lane >> 30)) * 0xBF58476D1CE4E5B9) & ALL_BITS
        lane = ((lane ^ (lane >> 27)) * 0x94D049BB133111EB) & ALL_BITS
        return lane ^ (lane >> 31)

    plain = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    raw = bytes(plain.view(torch.uint8).tolist())
    filled = raw + bytes(-len(raw) % 8)
    lanes = [int.from_bytes(filled[at : at + 8], "little") for at in range(0, len(filled), 8)]
    total = mixed(len(raw)) + sum(
        mixed((lane + (place + 1) * 0x9E3779B97F4A7C15) & ALL_BITS) for place, lane in enumerate(lanes)
    )
    return total & ALL_BITS


def samples() -> list[Tensor]:
    """Return tensors of many sizes and layouts; those of one size in each dtype."""
    torch.manual_seed(0)
    found = [torch.randn(size).to(dtype) for size in (0, 1, 2, 3, 7, 8, 1_000, 4_099) for dtype in DTYPES]
    found += [torch.randint(2, (13,)).to(dtype) for dtype in MORE]
    found += [torch.randn(()), torch.randn(3, 0), torch.randn(30, 50).t(), torch.randn(10, 20)[:, ::3]]
    found += [torch.randn(100)[1:], torch.randn(9, dtype=torch.float16)[3:], torch.randn(1).expand(20)]
    found += [torch.view_as_complex(torch.randn(5, 2)).conj(), torch.tensor([nan, -0.0, 0.0, float("inf")])]
    return found


def unsigned(found: Tensor) -> list[int]:
    return [each & ALL_BITS for each in found.tolist()]


def test_the_compiled_kernel_and_the_reference_have_the_bits_of_the_formula() -> None:
    assert kernel_for("cpu") is not reference.measure
    tensors = samples()
    truth = [expected(each) for each in tensors]
    assert unsigned(digests(tensors)) == truth
    assert unsigned(digests_by_torch(tensors)) == truth


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_tensors_agree_in_every_kernel_and_with_any_number_of_threads(dtype: torch.dtype) -> None:
    large = [torch.randn(2**20 + 5).to(dtype), torch.randn(2**18 + 1).to(dtype)]
    truth = digests_by_torch(large)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert torch.equal(digests(large), truth)
    finally:
        torch.set_num_threads(threads)


def test_without_a_compiler_the_reference_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_CHOSEN, "cpu", reference.measure)
    tensors = samples()
    assert unsigned(digests(tensors)) == [expected(each) for each in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_single_bit_changes_the_digest(dtype: torch.dtype) -> None:
    weights = torch.randn(67).to(dtype)
    changed = [weights]
    for at in range(weights.nbytes * 8):
        raw = weights.clone().view(torch.uint8)
        raw[at // 8] ^= 1 << (at % 8)
        changed.append(raw.view(dtype))
    assert len(set(digests(changed).tolist())) == len(changed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_swaps_and_signs_change_the_digest(dtype: torch.dtype) -> None:
    weights = torch.randn(64).to(dtype)
    changed = [weights, -weights, weights.flip(0), weights.roll(1), weights.roll(4)]
    for one, other in pairwise(range(64)):
        swapped = weights.clone()
        swapped[[one, other]] = weights[[other, one]]
        changed.append(swapped)
    for first in range(63):  # two opposite signs, which a sum of products would not see
        opposite = weights.clone()
        opposite[[first, 63]] *= -1
        changed.append(opposite)
    distinct = {bytes(each.view(torch.uint8).tolist()) for each in changed}
    assert len(set(digests(changed).tolist())) == len(distinct)


def test_zeros_of_both_signs_nan_payloads_and_sizes_differ() -> None:
    payload = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    alike = [torch.tensor([0.0]), torch.tensor([-0.0]), torch.tensor([nan]), payload]
    alike += [torch.zeros(size) for size in (0, 2, 3, 4)]
    assert len(set(digests(alike).tolist())) == len(alike)


def test_shape_and_strides_do_not_matter() -> None:
    weights = torch.randn(6, 8)
    assert len(set(digests([weights, weights.view(48), weights.t().contiguous().t()]).tolist())) == 1


def test_the_kernel_for_cuda_has_the_same_bits() -> None:
    kernel = pytest.importorskip(
        "nissa.kernels.cuda_digest", reason="torch brings Triton on Linux alone"
    ).digests_by_triton
    where = "cuda" if torch.cuda.is_available() else "cpu"  # where Triton interprets it
    tensors = [stored_bits(each).to(where) for each in [*samples(), torch.randn(70_001)]]
    truth = digests_by_torch(tensors)
    assert torch.equal(kernel(tensors), truth)
    assert torch.equal(kernel(tensors[:1]), truth[:1])


def test_a_gap_free_tensor_is_not_copied() -> None:
    weights = torch.nn.Parameter(torch.randn(5))
    assert stored_bits(weights).data_ptr() == weights.data_ptr()
