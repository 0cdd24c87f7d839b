"""How large the gradients of a seed are beside those of its host."""

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
    """Sum of squares of finite gradient elements, and how many there are."""

    squares: float = 0.0
    elements: int = 0

    def __add__(self, other: "SumOfSquares") -> "SumOfSquares":
        """Return both together."""
        return SumOfSquares(self.squares + other.squares, self.elements + other.elements)

    @property
    def root_mean_square(self) -> float | None:
        """None where there is no element."""
        return sqrt(self.squares / self.elements) if self.elements else None


@dataclass(frozen=True, slots=True)
class SumsOfSquares:
    """Of one sample: that of the host network, and that of each seed that is being grown, by slot."""

    host: SumOfSquares
    seeds: dict[str, SumOfSquares]
    epoch_ids: "SpanIds | None"


def sums_of_squares(
    moments: "Moments", seeds: "dict[str, np.ndarray[tuple[int], np.dtype[np.intp]]]", epoch_ids: "SpanIds | None"
) -> SumsOfSquares:
    """Return the energies of a sample, whose rows are parameters."""
    host = np.ones(len(moments), dtype=np.bool_)
    for rows in seeds.values():
        host[rows] = False
    grown = {slot: _sum_of_squares(moments.select(rows)) for slot, rows in seeds.items()}
    return SumsOfSquares(_sum_of_squares(moments.select(np.flatnonzero(host))), grown, epoch_ids)


def seed_ratios(sample: SumsOfSquares, others: "Iterable[SumsOfSquares]") -> dict[str, float]:
    """Return each seed's ratio; absent where seed or host have no gradients, or the host's are all zero.

    Args:
        sample: The newest sample of one watch.
        others: The newest samples of the environment's other watches, of which those of the same epoch count: a seed
            may have an optimizer of its own.
    """
    host = sum((each.host for each in others if each.epoch_ids == sample.epoch_ids), sample.host).root_mean_square
    sizes = {slot: seed.root_mean_square for slot, seed in sample.seeds.items()}
    return {slot: size / host for slot, size in sizes.items() if size is not None and host}


def _sum_of_squares(moments: "Moments") -> SumOfSquares:
    return SumOfSquares(float(moments.sum_of_squares.sum()), int(moments.finite.sum()))
