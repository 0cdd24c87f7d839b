"""Measurement of gradients on demand, without hooks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nissa.errors import UnknownNameError
from nissa.gradients.capture import Capture, Measures, Sampled
from nissa.gradients.health import assess
from nissa.gradients.selection import names_of
from nissa.kernels.moments import Layout, Moments, Thresholds
from nissa.kernels.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nissa.hub.measurements import GradientHealth


@dataclass(frozen=True, slots=True, eq=False)
class GradientStatistics:
    """Gradient statistics on the host.

    Args:
        names: Parameter name of each row of ``moments``.
        moments: Counts, sums and buckets per parameter, and values derived from them.
        health: Health score over all parameters.
    """

    names: tuple[str, ...]
    moments: Moments
    health: "GradientHealth"

    def __getitem__(self, name: str) -> Moments:
        """Return one parameter's statistics, as `Moments` of one row.

        Raises:
            UnknownNameError: `names` does not contain it: the parameter does not exist, or it had no gradient.
        """
        if name not in self.names:
            raise UnknownNameError("parameter with a gradient", name, self.names)
        return self.moments.select(np.array([self.names.index(name)]))


class PendingGradients:
    """Gradient statistics that may not have reached the host yet; returned by `collect_gradients`."""

    def __init__(self, parts: "Sequence[torch.Tensor]", sampled: "Sampled") -> None:
        self._sampled = sampled
        self._transfer = Transfer(parts)

    def done(self) -> bool:
        """Whether `result` would return at once; never waits."""
        return self._transfer.ready()

    def result(self, timeout: float | None = None) -> GradientStatistics:
        """Return the statistics; waits until the device has finished.

        Raises:
            TimeoutError: The device did not finish within ``timeout`` seconds.
        """
        found = self._sampled.unpack(self._transfer.arrays(timeout))
        return GradientStatistics(found.names, found.moments, assess(found.names, found.moments))


def collect_gradients(
    parameters: "torch.nn.Module | torch.Tensor | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]",
    *,
    histogram: bool = True,
    vanishing_threshold: float = 1e-7,
    exploding_threshold: float = 1e3,
) -> PendingGradients:
    """Measure the current gradients of parameters, without hooks and without waiting for a device.

    Args:
        parameters: A module, its ``named_parameters()``, a parameter, or several parameters. Parameters without a name
            are named by their position. Parameters without a gradient are absent from the result.
        histogram: Also count absolute values in log2-subdivided buckets, which quantiles need.
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
    measures = Measures(
        layout=Layout() if histogram else Layout(buckets=None),
        thresholds=Thresholds(vanishing=vanishing_threshold, exploding=exploding_threshold),
    )
    capture = Capture(measures, _named(parameters))
    with torch.no_grad():
        capture.read()
        return PendingGradients(*capture.finish())


def _named(
    parameters: "torch.nn.Module | torch.Tensor | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]]",
) -> list[tuple[str, torch.Tensor]]:
    items: Iterable[torch.Tensor | tuple[str, torch.Tensor]]
    if isinstance(parameters, torch.nn.Module):
        items = names_of(parameters)
    else:
        items = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    named: dict[int, tuple[str, torch.Tensor]] = {}
    for position, item in enumerate(items):
        name, parameter = item if isinstance(item, tuple) else (str(position), item)
        named.setdefault(id(parameter), (name, parameter))
    return list(named.values())
