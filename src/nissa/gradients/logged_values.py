"""Values that a training loop logs besides its loss: scalars and counts of processed items, pending until the next step."""

from collections.abc import Mapping
from operator import index
from typing import TYPE_CHECKING, Any, Final

import torch

from nissa.gradients.packing import one_number, pack
from nissa.gradients.step_metadata import LoggedMetadata
from nissa.kernels.transfer import Transfer, on_host

if TYPE_CHECKING:
    from nissa.gradients.readback import Readback
    from nissa.gradients.step_metadata import RowMetadata

    Value = torch.Tensor | float

SCALAR, ITEMS = "scalar:", "items:"
"""Prefixes of the names under which a row carries the means of scalars and the cumulative counts of items."""

MOST_ITEMS: Final = 2**53
"""Numbers of items are below this: a row carries them as float64, which is exact up to here."""


def value_now(value: Any, called: str) -> "torch.Tensor | float":
    """Return a number at the moment of the call: read if it is on the host, else copied on its device as float64.

    A copy is needed because the loop may change the tensor in place, and float64 because sums of several half precision
    numbers would be rounded. The copy has left its graph: a value that no step consumes must not keep a network alive.

    Args:
        value: A number, or a tensor of one element.
        called: The caller's function, for the messages.

    Raises:
        TypeError: It is not a real number.
        ValueError: It is a tensor of several elements.
    """
    if not hasattr(value, "detach"):
        # float() would parse text; its own message does not name the call.
        if isinstance(value, str | bytes) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
            raise TypeError(f"{called} takes a number or a tensor of one element, not {type(value).__name__}.")
        return float(value)
    one = _real(one_number(value.detach(), called), called)
    known = on_host(one)
    if known is not None:
        return known
    # NumPy cannot read every dtype of the CPU, bfloat16 for example; it can read float64.
    wide = one.to(torch.float64, copy=True)
    known = on_host(wide)
    return wide if known is None else known


def items_now(value: Any, called: str) -> torch.Tensor | int:
    """Return a number of items at the moment of the call, as an int or an int64 tensor on its device.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is negative, too large, or a tensor of several elements.
    """
    if not hasattr(value, "detach"):
        return _count(value, called)
    one = _real(one_number(value.detach(), called), called)
    known = on_host(one)
    if known is not None:
        return _count(known, called)
    if one.is_floating_point():  # whether it is whole is known on the device only
        raise TypeError(f"{called} takes a tensor of integers, not of {one.dtype}; convert it with .long().")
    return one.reshape(()).to(torch.int64, copy=True)


def _real(value: torch.Tensor, called: str) -> torch.Tensor:
    if value.is_complex() or value.is_meta:
        raise TypeError(f"{called} takes a real number, not a {'meta' if value.is_meta else 'complex'} tensor.")
    return value


def _count(value: Any, called: str) -> int:
    whole = int(value) if isinstance(value, float) and value.is_integer() else None
    if whole is None and not isinstance(value, bool):
        try:
            whole = index(value)
        except TypeError:
            whole = None
    if whole is None:
        given = f"{value:g}" if isinstance(value, float) else type(value).__name__
        raise TypeError(f"{called} takes a whole number, not {given}.")
    if not 0 <= whole < MOST_ITEMS:
        raise ValueError(f"{called} takes a number from 0 to 2**53, not {whole:.4g}.")
    return whole


class _Mean:
    """Mean of the values that were logged under one name, added where they are: on the host and on each device."""

    __slots__ = ("_count", "_totals")

    def __init__(self) -> None:
        self._totals: dict[torch.device | None, Value] = {}
        self._count = 0

    def add(self, value: "Value") -> None:
        place = value.device if isinstance(value, torch.Tensor) else None
        self._totals[place] = value if place not in self._totals else self._totals[place] + value
        self._count += 1

    def write(self, name: str, values: "dict[str, Value]") -> None:
        for number, total in enumerate(self._totals.values()):
            values[f"{SCALAR}{number}:{name}"] = total if self._count == 1 else total / self._count


class _ItemCount:
    """Items of one kind since the start of the run: counted on the host, and on each device that held a count."""

    __slots__ = ("_on_device", "_on_host")

    def __init__(self) -> None:
        self._on_host = 0
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def add(self, amount: torch.Tensor | int) -> None:
        if not isinstance(amount, torch.Tensor):
            self._on_host += amount
            return
        # Never add in place: rows that are being copied may still refer to the memory.
        before = self._on_device.get(amount.device)
        self._on_device[amount.device] = amount if before is None else before + amount

    def write(self, kind: str, values: "dict[str, Value]") -> None:
        values[f"{ITEMS}host:{kind}"] = float(self._on_host)
        for number, total in enumerate(self._on_device.values()):
            values[f"{ITEMS}{number}:{kind}"] = total


class LoggedValues:
    """Scalars and counts of items of one environment; written by the training thread only.

    Scalars of several calls before a step are averaged. Items are summed, and every row carries the sum since the start of
    the run: an increment would be lost with a dropped row, while a sum is correct again with the next row.

    Attributes:
        at: Time of the newest call, nanoseconds since the Unix epoch.
    """

    def __init__(self) -> None:
        self.at = 0
        self._scalars: dict[str, _Mean] = {}
        self._items: dict[str, _ItemCount] = {}
        self._counted: set[str] = set()

    @property
    def pending(self) -> bool:
        """Whether there are values that no row has carried."""
        return bool(self._scalars or self._counted)

    def log(self, name: str, value: "Value", at: int) -> None:
        """Add a value of `value_now` to the mean of a scalar."""
        self.at = at
        mean = self._scalars.get(name)
        if mean is None:
            mean = self._scalars[name] = _Mean()
        mean.add(value)

    def count(self, kind: str, amount: torch.Tensor | int, at: int) -> None:
        """Add an amount of `items_now` to the items of a kind."""
        self.at = at
        count = self._items.get(kind)
        if count is None:
            count = self._items[kind] = _ItemCount()
        count.add(amount)
        self._counted.add(kind)

    def take(self) -> "dict[str, Value]":
        """Return the pending values by their names in a row, and begin anew."""
        if not self.pending:
            return {}
        scalars, self._scalars = self._scalars, {}
        counted, self._counted = self._counted, set()
        values: dict[str, Value] = {}
        for name, mean in scalars.items():
            mean.write(name, values)
        for kind in sorted(counted):
            self._items[kind].write(kind, values)
        return values


def submit(logged: LoggedValues, env_id: str | None, readback: "Readback[RowMetadata]") -> None:
    """Queue a row with the pending values, at the time of the newest call."""
    at, values = logged.at, logged.take()
    moving = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    known = {name: value for name, value in values.items() if not isinstance(value, torch.Tensor)}
    tensors, packing = pack([], moving)
    readback.submit(Transfer(tensors), LoggedMetadata(env_id, at, packing, known), hurry=False)


def scalars_in(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the scalars that a row carries, by name."""
    return _sums(numbers, SCALAR)


def items_in(numbers: Mapping[str, float]) -> dict[str, int]:
    """Return the numbers of items since the start of the run that a row carries, by kind."""
    return {kind: int(total) for kind, total in _sums(numbers, ITEMS).items()}


def _sums(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the sums over host and devices by the user's name: ``items:0:tokens`` and ``items:1:tokens`` are ``tokens``."""
    found: dict[str, float] = {}
    for name, value in numbers.items():
        if name.startswith(prefix):
            own = name.removeprefix(prefix).partition(":")[2]
            found[own] = found[own] + value if own in found else value
    return found
