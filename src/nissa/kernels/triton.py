"""The kernel for tensors on a CUDA device: one read of each, compiled by Triton, which comes with torch.

It agrees with :mod:`nissa.kernels.reference` exactly in counts and extremes, and in sums to rounding: they are float64,
and added up in the same order every time.

A step is one launch per dtype, however many tensors there are, and one that adds up and packs. They find tensors by
tables on the device: the plan says which chunk is of which tensor and depends on sizes alone; the places are addresses,
sent again when one has changed, from pinned memory that nothing waits for.
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
from nissa.kernels.fallback import Contained
from nissa.kernels.formats import FORMATS, Format, octave
from nissa.kernels.memory import fills_its_memory, size, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nissa.kernels.moments import Layout, Thresholds

# A tensor's dtype, how many numbers it stores, and how many zeros it does not store.
_Shape: TypeAlias = tuple[torch.dtype, int, int]

_CHUNK = 32768  # numbers that one program reads
_ALIGNMENT = 16  # bytes that a thread reads at once
_WARPS = 4
_OPTIONS = {"enable_fp_fusion": True}  # one rounding less in a square that is added; Triton asks for an answer
_HELD = 64  # bytes of numbers that a thread has in its registers, as they are compared
_SMALLEST_EXPONENT = -126  # of float32 that is not subnormal
# Beyond, counters no longer fit the memory that threads of a program share, beside enough other programs.
_SHARED_BUCKETS = 2048


# Bits of a number, below 0 for bfloat16.
_KINDS = {torch.float64: 64, torch.float32: 32, torch.float16: 16, torch.bfloat16: -16}


def prepare() -> Contained:
    """Return :func:`measure`, which gives way to the reference where Triton cannot compile."""
    return Contained(measure, "The compiled kernel for CUDA")


def measure(
    tensors: "Sequence[Tensor]", layout: "Layout", thresholds: "Thresholds", scale: "Tensor | None" = None
) -> "Tensor":
    """Return the packed statistics of tensors, as :func:`nissa.kernels.reference.measure` does, without waiting.

    Tensors that cannot be read at an address (of another dtype or device, or without memory) are left to the reference,
    all of them. One whose elements do not fill its memory is copied first.

    Args:
        tensors: Real or complex floating-point tensors on one device, dense or sparse, of any shape, strides and size.
        layout: Which columns to fill.
        thresholds: What counts as vanishing and exploding.
        scale: What the tensors were multiplied by, float32, one element on their device, where it is read.

    Returns:
        int64 of shape ``(len(tensors), layout.width)``, in the layout of :mod:`nissa.kernels.moments`.
    """
    there = [stored(tensor).resolve_neg() for tensor in tensors]
    if not there or not all(_readable(tensor, there[0].device) for tensor in there):
        return reference.measure(tensors, layout, thresholds, scale)
    dense = [tensor if fills_its_memory(tensor) else tensor.contiguous() for tensor in there]
    shapes = tuple((of.dtype, of.numel(), size(tensor) - of.numel()) for of, tensor in zip(dense, tensors, strict=True))
    device = dense[0].device
    plan = _plan(shapes, device, reference.stream_of(device))
    with _on(device):
        return _Step(plan, plan.places(dense), layout, thresholds, scale).measure()


def _readable(tensor: "Tensor", device: torch.device) -> bool:
    return (
        tensor.device == device
        and device.type != "meta"
        and tensor.dtype in _KINDS
        and tensor.layout is torch.strided
        and (tensor.data_ptr() != 0 or not tensor.numel())
    )


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Plan:
    """Which chunk is of which tensor, on the device, for tensors of these shapes.

    Args:
        shapes: Dtype, numbers and zeros that are not stored, of each tensor.
        device: Where they are.

    Attributes:
        launches: First chunk and number of chunks of each dtype.
        row_of: int32 of shape ``(chunks,)``.
        rows: int64 of shape ``(4, P)``: first chunk, chunks, size, zeros that are not stored.
    """

    def __init__(self, shapes: "tuple[_Shape, ...]", device: torch.device) -> None:
        self._itemsizes = np.array([dtype.itemsize for dtype, _, _ in shapes], dtype=np.int64)
        self._numbers = np.array([numbers for _, numbers, _ in shapes], dtype=np.int64)
        implicit = np.array([zeros for _, _, zeros in shapes], dtype=np.int64)
        # Wherever the first element is in its 16 bytes, there are chunks enough.
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
        """Return where tensors are, int64 of shape ``(3, P)`` on their device; they must not move before it is read."""
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
    """Return tables of their own for each stream: they are on their way, and only their stream waits for them."""
    return _Plan(shapes, device)


@lru_cache(maxsize=32)
def _cells(scale: int, form: Format, device: torch.device, _stream: int) -> "Tensor":
    return reference.send(torch.from_numpy(octave(scale, form).astype(form.bits)), device)


class _Step(NamedTuple):
    """The launches that measure tensors."""

    plan: _Plan
    places: "Tensor"
    layout: "Layout"
    thresholds: "Thresholds"
    scale: "Tensor | None"

    def measure(self) -> "Tensor":
        """Return the packed rows."""
        plan, device, tensors = self.plan, self.places.device, self.places.shape[1]
        buckets = self.layout.buckets.size if self.layout.buckets else 0
        parts = torch.empty((compiled.PARTS, plan.chunks), dtype=torch.float64, device=device)
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
        compiled.scan[(number,)](
            self.plan.row_of,
            self.plan.rows,
            self.places,
            self.plan.rows if self.scale is None else self.scale,
            self._cells_of(form_of(dtype, self.layout.buckets)),
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
    """Return what numbers are compared as: float32, or float64 where buckets reach its subnormals or numbers are float64."""
    wide = dtype is torch.float64 or (buckets is not None and buckets.min_exponent < _SMALLEST_EXPONENT)
    return FORMATS[torch.float64 if wide else torch.float32]


@lru_cache(maxsize=64)
def options(
    dtype: torch.dtype, layout: "Layout", thresholds: "Thresholds", *, scaled: bool
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the constants that :func:`nissa.kernels.device.scan` is compiled for, and the limits it is called with."""
    kind, span = _KINDS[dtype], layout.buckets
    form = form_of(dtype, span)
    # `|x| < t` is `|x| <= e` where `e` is the float64 just below `t`; below 0 where nothing vanishes.
    covered = [2.0**span.min_exponent, 2.0**span.max_exponent] if span else [0.0, 0.0]
    edges = form.floor(np.array([nextafter(thresholds.vanishing, -inf), thresholds.exploding, *covered]))
    constants = {
        "KIND": kind,
        "WIDE": form.fraction == FORMATS[torch.float64].fraction,
        "SCALED": scaled,
        "SIZE": span.size if span else 0,
        "SHARED": span is None or span.size <= _SHARED_BUCKETS,
        "SCALE": span.scale if span else 0,
        "SHIFT": form.shift(span.scale if span else 0),
        "OFFSET": span.offset if span else 0,
        "CHUNK": _CHUNK,
        "ROWS": _HELD * dtype.itemsize // (_ALIGNMENT * np.dtype(form.bits).itemsize),
        "THREADS": _WARPS * 32,
        "TOGETHER": _ALIGNMENT // dtype.itemsize,
        "POWER": 1 << (span.size - 1).bit_length() if span and span.size <= _SHARED_BUCKETS else 1,
    }
    return constants, tuple(map(int, edges))
