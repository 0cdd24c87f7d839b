"""Packs the statistics of many gradients into one tensor per device, and unpacks them on the host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.errors import UnknownNameError
from nissa.gradients.health import assess
from nissa.gradients.readback import Transfer
from nissa.gradients.selection import names_of
from nissa.kernels import kernel_for
from nissa.kernels.moments import Layout, Moments, Thresholds, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nissa.hub.measurements import GradientHealth


@dataclass(frozen=True, slots=True)
class Packed:
    """Statistics on their devices.

    Args:
        names: A parameter per row; rows of all parts together, part by part.
        parts: int64 tensors ``(rows, layout.width)``, one per device.
    """

    names: tuple[str, ...]
    parts: tuple[torch.Tensor, ...]
    layout: Layout

    def unpack(self, arrays: "Sequence[NDArray[np.generic]]") -> Moments:
        """Return the statistics from the parts' host copies."""
        rows = [np.asarray(array, dtype=np.int64).reshape(-1, self.layout.width) for array in arrays]
        packed = np.concatenate(rows) if rows else np.zeros((0, self.layout.width), dtype=np.int64)
        return decode(packed, self.layout)


def pack(named: "Iterable[tuple[str, torch.Tensor]]", layout: Layout, thresholds: Thresholds) -> Packed:
    """Measure gradients where they are; nothing waits for a device here.

    Args:
        named: Name and gradient; devices and dtypes may be mixed.
        layout: What to measure.
        thresholds: Where an element counts as vanishing or exploding.
    """
    devices: dict[torch.device, tuple[list[str], list[torch.Tensor]]] = {}
    for name, gradient in named:
        names, tensors = devices.setdefault(gradient.device, ([], []))
        names.append(name)
        tensors.append(gradient)
    parts = tuple(kernel_for(device.type)(tensors, layout, thresholds) for device, (_, tensors) in devices.items())
    return Packed(tuple(name for names, _ in devices.values() for name in names), parts, layout)


@dataclass(frozen=True, slots=True, eq=False)
class GradientStatistics:
    """Gradient statistics on the host.

    Args:
        names: A parameter per row of ``moments``.
        moments: Counts, sums and buckets per parameter, and what derives from them.
        health: How healthy they are, all in all.
    """

    names: tuple[str, ...]
    moments: Moments
    health: "GradientHealth"

    def __getitem__(self, name: str) -> Moments:
        """Return one parameter's statistics, as `Moments` of one row.

        Raises:
            UnknownNameError: It is none of `names`: there is no such parameter, or it had no gradient.
        """
        if name not in self.names:
            raise UnknownNameError("parameter with a gradient", name, self.names)
        return self.moments.select(np.array([self.names.index(name)]))


class PendingGradients:
    """Gradient statistics that may still be on their way from a device; see `collect_gradients`."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._transfer = Transfer(packed.parts)

    def done(self) -> bool:
        """Whether `result` would return at once; never waits."""
        return self._transfer.ready()

    def result(self, timeout: float | None = None) -> GradientStatistics:
        """Return the statistics, waiting for the device where it has not finished.

        Raises:
            TimeoutError: They did not come within ``timeout`` seconds.
        """
        moments = self._packed.unpack(self._transfer.arrays(timeout))
        return GradientStatistics(self._packed.names, moments, assess(self._packed.names, moments))


def collect_gradients(
    parameters: "torch.nn.Module | torch.Tensor | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]",
    *,
    histogram: bool = True,
    vanishing_threshold: float = 1e-7,
    exploding_threshold: float = 1e3,
) -> PendingGradients:
    """Measure the gradients of parameters now, without hooks, and without waiting for a device.

    Args:
        parameters: A module, its ``named_parameters()``, or parameters, which are then named by their position; a lone
            parameter is fine.
            Parameters without a gradient are absent from the result.
        histogram: Also count log2-subdivided buckets of the absolute values, for quantiles.
        vanishing_threshold: Absolute values below it count as vanishing.
        exploding_threshold: Absolute values above it count as exploding.

    Example:
        >>> import torch, nissa
        >>> layer = torch.nn.Linear(3, 1, bias=False)
        >>> layer(torch.tensor([[3.0, 0.0, 4.0]])).sum().backward()
        >>> pending = nissa.collect_gradients(layer)
        >>> pending.result()["weight"].norm
        array([5.])
    """
    layout = Layout() if histogram else Layout(buckets=None)
    thresholds = Thresholds(vanishing=vanishing_threshold, exploding=exploding_threshold)
    return PendingGradients(pack(_named_gradients(parameters), layout, thresholds))


def _named_gradients(
    parameters: "torch.nn.Module | torch.Tensor | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]",
) -> "Iterable[tuple[str, torch.Tensor]]":
    items: Iterable[torch.Tensor | tuple[str, torch.Tensor]]
    if isinstance(parameters, torch.nn.Module):
        items = names_of(parameters)
    else:
        items = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    seen: set[int] = set()
    for position, item in enumerate(items):
        name, parameter = item if isinstance(item, tuple) else (str(position), item)
        if parameter.grad is not None and id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, parameter.grad
