"""Interface of the C functions in ``native/``: statistics, sums of squares and digests of CPU tensors at given addresses.

The functions run on torch's OpenMP threads while the training thread waits for them. A thread pool of our own would be
slower: after an operation, torch's threads wait for some milliseconds by spinning, and occupy all cores.
"""

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from nissa.kernels.cores import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IGNORE", "SUBTRACT", "WRITE", "Tables", "TensorTable", "begin", "end", "library"]

_TYPES: Final = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
_BYTES: Final = 4
"""Element type of memory whose elements do not matter."""

IGNORE, WRITE, SUBTRACT = range(3)
"""Use of copies by `TensorTable.squares`: none, write them, or subtract them."""

_RUN: Final = 2**21
"""Bytes that one thread processes at a time (``RUN_BYTES`` in ``native/parallel.c``)."""
_BRIEF: Final = 2**17
"""Bytes up to which a call keeps the GIL: it takes about 20 microseconds, and taking the GIL back can take milliseconds."""

_state = {"forked": False}


class Tables(ctypes.Structure):
    """Tables of a layout and thresholds for one type; ``native/statistics.c`` explains the fields."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("below", "above", "scale", "cell_bits", "indexes", "edge_count")),
        *((name, ctypes.c_void_p) for name in ("octave", "column_of_index", "edges", "column_of_slot")),
    )


class TensorTable:
    """List of tensors for a C function.

    Tensors must be plain (`nissa.kernels.memory.is_plain`) and stay alive until the last call.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int, int]] = []
        self._bytes = 0

    def add(self, tensor: torch.Tensor, target: int) -> None:
        """Add a tensor.

        Args:
            tensor: The tensor.
            target: Row of the result, or address of its copy.
        """
        dtype, size = tensor.dtype, tensor.numel()
        self._entries.append((tensor.data_ptr(), size, _TYPES[dtype], target))
        self._bytes += size * dtype.itemsize

    def add_bytes(self, tensor: torch.Tensor) -> None:
        """Add the memory of a contiguous tensor of any dtype, for `digests`."""
        self._entries.append((tensor.data_ptr(), tensor.nbytes, _BYTES, 0))
        self._bytes += tensor.nbytes

    def clear(self) -> None:
        """Remove all tensors."""
        self._entries.clear()
        self._bytes = 0

    def add_statistics(self, rows: "NDArray[np.int64]", doubles: Tables, singles: Tables) -> None:
        """Add the statistics of the tensors to their rows.

        Raises:
            MemoryError: The tables of a thread do not fit into memory.
        """
        entries = self._array()
        _check(
            library(keep_gil=self._bytes <= _BRIEF).nissa_statistics_add(
                _address(entries),
                len(entries),
                ctypes.byref(doubles),
                ctypes.byref(singles),
                _address(rows),
                rows.shape[1],
                self._threads(),
            )
        )

    def squares(self, use: int) -> "NDArray[np.float64]":
        """Return the sum of squares of each tensor, or of its difference from its copy.

        Args:
            use: Use of the copies: `IGNORE`, `WRITE` or `SUBTRACT`.

        Raises:
            MemoryError: There is no memory for the sums.
        """
        entries, sums = self._array(), np.empty(len(self._entries))
        call = library(keep_gil=self._bytes <= _BRIEF).nissa_squares
        _check(call(_address(entries), len(entries), use, _address(sums), self._threads()))
        return sums

    def digests(self) -> "NDArray[np.int64]":
        """Return the digest of each tensor, see `nissa.kernels.digest_reference`.

        Raises:
            MemoryError: There is no memory for the list of runs.
        """
        entries, found = self._array(), np.empty(len(self._entries), dtype=np.int64)
        call = library(keep_gil=self._bytes <= _BRIEF).nissa_digest
        _check(call(_address(entries), len(entries), _address(found), self._threads()))
        return found

    def _array(self) -> "NDArray[np.int64]":
        return np.array(self._entries, dtype=np.int64).reshape(-1, 4)

    def _threads(self) -> int:
        return min(_threads(), -(-self._bytes // _RUN)) if self._bytes > _RUN else 1


@cache
def library(*, keep_gil: bool) -> Any:
    """Return the C functions, which release the GIL or keep it.

    Raises:
        ImportError: They were not compiled when Nissa was installed.
        OSError: They cannot be loaded.
    """
    spec = find_spec("nissa.kernels._native")
    if spec is None or spec.origin is None:
        raise ImportError("Nissa was installed without a C compiler.")
    return load(spec.origin, keep_gil=keep_gil)


def load(path: str, *, keep_gil: bool) -> Any:
    """Return the functions of a library with their argument types."""
    loaded = (ctypes.PyDLL if keep_gil else ctypes.CDLL)(path)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.nissa_statistics_begin.argtypes = pointer, number, number
    loaded.nissa_statistics_end.argtypes = pointer, number, number
    loaded.nissa_statistics_add.argtypes = pointer, number, pointer, pointer, pointer, number, ctypes.c_int
    loaded.nissa_squares.argtypes = pointer, number, number, pointer, ctypes.c_int
    loaded.nissa_digest.argtypes = pointer, number, pointer, ctypes.c_int
    return loaded


def begin(rows: "NDArray[np.int64]") -> None:
    """Set rows to those of tensors without elements."""
    library(keep_gil=True).nissa_statistics_begin(_address(rows), *rows.shape)


def end(rows: "NDArray[np.int64]") -> None:
    """Compute the columns that follow from others, after all tensors were added."""
    library(keep_gil=True).nissa_statistics_end(_address(rows), *rows.shape)


def _address(array: "NDArray[Any]") -> int:
    address: int = array.ctypes.data
    return address


def _check(status: int) -> None:
    if status:
        raise MemoryError("There is not enough memory for the tables of a kernel.")


def _threads() -> int:
    """Return the number of threads to use: the smaller of torch's threads and the usable cores.

    A forked child does not inherit the threads of the runtime, and using them there would deadlock.
    """
    allowed = torch.get_num_threads()
    return allowed if allowed == 1 else 1 if _state["forked"] else max(1, min(allowed, _cores()))


@cache
def _cores() -> int:
    return int(usable_cores())


def _in_child() -> None:
    _state["forked"] = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
