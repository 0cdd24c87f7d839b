"""Ratio of the gradient magnitudes of seeds to those of their host network."""

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nissa.events import SpanIds
    from nissa.kernels.moments import Moments


@dataclass(frozen=True, slots=True)
class SumOfSquares:
    """Sum of squares and number of finite gradient elements."""

    squares: float = 0.0
    elements: int = 0

    def __add__(self, other: "SumOfSquares") -> "SumOfSquares":
        """Return the sum over the elements of both."""
        return SumOfSquares(self.squares + other.squares, self.elements + other.elements)

    @property
    def root_mean_square(self) -> float | None:
        """Root mean square; None without elements."""
        return sqrt(self.squares / self.elements) if self.elements else None


@dataclass(frozen=True, slots=True)
class SumsOfSquares:
    """Sums of squares of one sample: of the host network, and of each growing seed by slot."""

    host: SumOfSquares
    seeds: dict[str, SumOfSquares]
    epoch_ids: "SpanIds | None"


def sums_of_squares(
    moments: "Moments", seeds: "dict[str, np.ndarray[tuple[int], np.dtype[np.intp]]]", epoch_ids: "SpanIds | None"
) -> SumsOfSquares:
    """Return the sums of squares of a sample; ``moments`` has one row per parameter."""
    host = np.ones(len(moments), dtype=np.bool_)
    for rows in seeds.values():
        host[rows] = False
    grown = {slot: _sum_of_squares(moments.select(rows)) for slot, rows in seeds.items()}
    return SumsOfSquares(_sum_of_squares(moments.select(np.flatnonzero(host))), grown, epoch_ids)


def seed_ratios(sample: SumsOfSquares, others: "Iterable[SumsOfSquares]") -> dict[str, float]:
    """Return the ratio of each seed to the host, by slot.

    A seed is absent if it or the host has no gradients, or if all gradients of the host are zero.

    Args:
        sample: The newest sample of one watch.
        others: The newest samples of the other watches of the environment, because a seed may have its own optimizer.
            Samples of other epochs are ignored.
    """
    host = sum((each.host for each in others if each.epoch_ids == sample.epoch_ids), sample.host).root_mean_square
    sizes = {slot: seed.root_mean_square for slot, seed in sample.seeds.items()}
    return {slot: size / host for slot, size in sizes.items() if size is not None and host}


def _sum_of_squares(moments: "Moments") -> SumOfSquares:
    return SumOfSquares(float(moments.sum_of_squares.sum()), int(moments.finite.sum()))
