"""Kernel for CUDA tensors: reads each tensor once; compiled by Triton, a dependency of torch.

Counts and extremes are equal to those of :mod:`nissa.kernels.reference`; sums are equal up to rounding. Sums are
float64 and added in a fixed order.

A step needs one launch per dtype for any number of tensors, and one launch that adds up and packs. The launches find
tensors through two tables on the device. The plan maps chunks to tensors and depends on sizes alone. The places are
addresses; they are sent again if one has changed, asynchronously from pinned memory.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch

from nissa.kernels import device as compiled
from nissa.kernels import reference
from nissa.kernels.buckets import BucketRange
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.formats import FORMATS, Format, octave
from nissa.kernels.memory import fills_its_memory, size, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

# Dtype, number of stored numbers, and number of implicit zeros of a tensor; the key of the plan cache.
_Shape: TypeAlias = tuple[torch.dtype, int, int]

_CHUNK = 32768  # numbers per program
_ALIGNMENT = 16  # bytes per load of a thread
_WARPS = 4
_OPTIONS = {"enable_fp_fusion": True}  # fused multiply-add rounds once; set explicitly, because Triton requires a value
_HELD = 64  # bytes of numbers per thread in registers, in the format of comparison
_SMALLEST_EXPONENT = -126  # of normal float32
# Beyond this, the counters of a program need so much shared memory that too few programs run concurrently.
_SHARED_BUCKETS = 2048
# Biased exponents of float64. Each is an octave of magnitudes.
_OCTAVES = 2**11
_BIAS = 1023


# Bits per number; negative for bfloat16, to distinguish it from float16.
_KINDS = {torch.float64: 64, torch.float32: 32, torch.float16: 16, torch.bfloat16: -16}


def prepare() -> FallbackKernel:
    """Return :func:`measure` with a fallback to the reference if Triton cannot compile."""
    return FallbackKernel(measure, "The compiled kernel for CUDA")


def measure(
    tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
) -> "Tensor":
    """Return the packed statistics of tensors, as :func:`nissa.kernels.reference.measure` does, without waiting.

    If one tensor has no readable address (other dtype or device, no storage), the reference measures all of them. A
    tensor with gaps in memory is copied first.

    Args:
        tensors: Real or complex floating-point tensors on one device, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: Magnitudes that count as vanishing and exploding.
        scale: Factor that the tensors were multiplied by, float32, one element; read on their device.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    stored_tensors = [stored(tensor).resolve_neg() for tensor in tensors]
    if not stored_tensors or not all(_readable(tensor, stored_tensors[0].device) for tensor in stored_tensors):
        return reference.measure(tensors, layout, thresholds, scale)
    dense = [tensor if fills_its_memory(tensor) else tensor.contiguous() for tensor in stored_tensors]
    shapes = tuple((of.dtype, of.numel(), size(tensor) - of.numel()) for of, tensor in zip(dense, tensors, strict=True))
    device = dense[0].device
    plan = _plan(shapes, device, reference.stream_of(device))
    with on_device(device):
        return _Step(plan, plan.places(dense), layout, thresholds, scale).measure()


def _readable(tensor: "Tensor", device: torch.device) -> bool:
    return (
        tensor.device == device
        and device.type != "meta"
        and tensor.dtype in _KINDS
        and tensor.layout is torch.strided
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which launches go to this device, because Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Plan:
    """Assignment of chunks to tensors, as tables on the device.

    Args:
        shapes: Dtype, stored numbers and implicit zeros of each tensor.
        device: Device of the tensors.

    Attributes:
        launches: First chunk and number of chunks of each dtype, because each dtype needs its own launch.
        row_of: Tensor index of each chunk, int32 of shape ``(chunks,)``.
        rows: int64 of shape ``(4, P)``: first chunk, number of chunks, size, implicit zeros.
    """

    def __init__(self, shapes: "tuple[_Shape, ...]", device: torch.device) -> None:
        self._itemsizes = np.array([dtype.itemsize for dtype, _, _ in shapes], dtype=np.int64)
        self._numbers = np.array([numbers for _, numbers, _ in shapes], dtype=np.int64)
        implicit = np.array([zeros for _, _, zeros in shapes], dtype=np.int64)
        # Assume the worst alignment of the first element, because chunks begin at multiples of 16 bytes.
        chunks = -(-(self._numbers + _ALIGNMENT // self._itemsizes - 1) // _CHUNK) * (self._numbers > 0)
        kinds = np.array([_KINDS[dtype] for dtype, _, _ in shapes], dtype=np.int64)
        order = np.argsort(kinds, kind="stable")
        first = np.empty_like(chunks)
        first[order] = np.cumsum(chunks[order]) - chunks[order]
        self.chunks = int(chunks.sum())
        self.launches: dict[torch.dtype, tuple[int, int]] = {
            dtype: (int(first[kinds == kind][0]), int(chunks[kinds == kind].sum()))
            for dtype, kind in _KINDS.items()
            if chunks[kinds == kind].any()
        }
        rows = np.stack((first, chunks, self._numbers + implicit, implicit))
        self.rows = reference.send(torch.from_numpy(rows), device)
        row_of = np.repeat(order, chunks[order]).astype(np.int32)
        self.row_of = reference.send(torch.from_numpy(row_of), device)
        self._sent: tuple[list[int], Tensor] | None = None

    def places(self, tensors: "Sequence[Tensor]") -> "Tensor":
        """Return the table of addresses, int64 of shape ``(3, P)`` on the device.

        Its rows are: aligned address, numbers from there to the first element, numbers from there to the end. The
        tensors must not move until the launches have run.
        """
        addresses = [tensor.data_ptr() for tensor in tensors]
        sent = self._sent
        if sent is None or sent[0] != addresses:
            beside = np.array(addresses, dtype=np.int64) % _ALIGNMENT
            before = beside // self._itemsizes
            table = np.stack((np.array(addresses, dtype=np.int64) - beside, before, before + self._numbers))
            sent = self._sent = addresses, reference.send(torch.from_numpy(table), self.rows.device)
        return sent[1]


@lru_cache(maxsize=32)
def _plan(shapes: "tuple[_Shape, ...]", device: torch.device, _stream: int) -> _Plan:
    """Return the plan of a stream.

    Each stream has its own tables, because the asynchronous copy to the device is ordered only within one stream.
    """
    return _Plan(shapes, device)


@lru_cache(maxsize=32)
def _cells(scale: int, form: Format, device: torch.device, _stream: int) -> "Tensor":
    return reference.send(torch.from_numpy(octave(scale, form).astype(form.bits)), device)


@lru_cache(maxsize=32)
def _octaves(buckets: BucketRange | None, device: torch.device, _stream: int) -> "Tensor":
    return reference.send(torch.from_numpy(outer_buckets(buckets)), device)


def outer_buckets(buckets: BucketRange | None) -> "NDArray[np.int32]":
    """Return the coarse bucket of each octave ``(2**(i - 1023), 2**(i - 1022)]``, or -1, shape ``(2048,)``.

    Coarse buckets are numbered without the fine ones. An octave has no coarse bucket if it has fine ones or is outside all.
    """
    found = np.full(_OCTAVES, -1, dtype=np.int32)
    if buckets is None or buckets.within is None:
        return found
    octaves = np.arange(_OCTAVES) - _BIAS
    bounds = np.log2(buckets.boundaries())  # exact for the powers of two outside the fine buckets
    column = np.searchsorted(bounds, octaves, side="right") - 1
    column[(column < 0) | (column >= buckets.size)] = -1
    fine = (column >= buckets.before) & (column < buckets.before + buckets.inner_size)
    return np.where(fine, -1, column - buckets.inner_size * (column >= buckets.before)).astype(np.int32)


class _Step(NamedTuple):
    """Launches that measure the tensors of one step."""

    plan: _Plan
    places: "Tensor"
    layout: "Layout"
    thresholds: "Thresholds"
    scale: "Tensor | None"

    def measure(self) -> "Tensor":
        """Return the packed rows."""
        plan, device, tensors = self.plan, self.places.device, self.places.shape[1]
        buckets = self.layout.buckets.size if self.layout.buckets else 0
        # One column per chunk: programs write their reductions separately, so that `pack` adds them in a fixed order.
        parts = torch.empty((compiled.PARTS, plan.chunks), dtype=torch.float64, device=device)
        # One row per tensor: integer sums do not depend on the order, so that programs add atomically. Without buckets
        # the kernel does not access this argument, and any tensor is valid.
        counts = torch.zeros((tensors, buckets), dtype=torch.int64, device=device) if buckets else plan.rows
        for dtype, (first, number) in plan.launches.items():
            self._scan(dtype, parts, counts, first, number)
        packed = torch.empty((tensors, self.layout.width), dtype=torch.int64, device=device)
        compiled.pack[(tensors,)](
            plan.rows,
            parts,
            counts,
            packed,
            plan.chunks,
            tensors,
            int(self.thresholds.vanishing > 0),
            SIZE=buckets,
            WIDTH=self.layout.width,
            num_warps=_WARPS,
            **_OPTIONS,
        )
        return packed

    def _scan(self, dtype: torch.dtype, parts: "Tensor", counts: "Tensor", first: int, number: int) -> None:
        constants, limits = options(dtype, self.layout, self.thresholds, scaled=self.scale is not None)
        # `scale` is not accessed unless SCALED is set, so that any tensor is valid in its place.
        compiled.scan[(number,)](
            self.plan.row_of,
            self.plan.rows,
            self.places,
            self.plan.rows if self.scale is None else self.scale,
            self._cells_of(form_of(dtype, self.layout.buckets)),
            _octaves(self.layout.buckets, self.places.device, reference.stream_of(self.places.device)),
            parts,
            counts,
            first,
            self.plan.chunks,
            self.places.shape[1],
            *limits,
            **constants,
            num_warps=_WARPS,
            **_OPTIONS,
        )

    def _cells_of(self, form: Format) -> "Tensor":
        device = self.places.device
        scale = self.layout.buckets.scale if self.layout.buckets else 0
        return _cells(scale, form, device, reference.stream_of(device))


def form_of(dtype: torch.dtype, buckets: BucketRange | None) -> Format:
    """Return the format of comparison: float64 for float64 and for buckets below normal float32, otherwise float32."""
    wide = dtype is torch.float64 or (buckets is not None and buckets.min_exponent < _SMALLEST_EXPONENT)
    return FORMATS[torch.float64 if wide else torch.float32]


@lru_cache(maxsize=64)
def options(
    dtype: torch.dtype, layout: "Layout", thresholds: "Thresholds", *, scaled: bool
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the compile-time constants of :func:`nissa.kernels.device.scan`, and its limits (bits of the edges)."""
    kind, span = _KINDS[dtype], layout.buckets
    form = form_of(dtype, span)
    # `|x| < t` equals `|x| <= e` where `e` is the next float64 below `t`. For `t` = 0 it is negative: nothing vanishes.
    covered = [2.0**span.min_exponent, 2.0**span.max_exponent, span.boundaries()[0]] if span else [0.0, 0.0, 0.0]
    inner = span.inner_size if span else 0
    outer = span.size - inner if span else 0
    edges = form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding, *covered]))
    constants = {
        "KIND": kind,
        "WIDE": form.fraction == FORMATS[torch.float64].fraction,
        "SCALED": scaled,
        "SIZE": inner,
        "OUTER": outer,
        "BEFORE": span.before if span else 0,
        "SHARED": inner <= _SHARED_BUCKETS,
        "SCALE": span.scale if span else 0,
        "SHIFT": form.shift(span.scale if span else 0),
        "OFFSET": span.offset if span else 0,
        "CHUNK": _CHUNK,
        "ROWS": _HELD * dtype.itemsize // (_ALIGNMENT * np.dtype(form.bits).itemsize),
        "THREADS": _WARPS * 32,
        "TOGETHER": _ALIGNMENT // dtype.itemsize,
        "POWER": 1 << (inner - 1).bit_length() if 0 < inner <= _SHARED_BUCKETS else 1,
        "OUTER_POWER": 1 << outer.bit_length(),
    }
    return constants, tuple(map(int, edges))
