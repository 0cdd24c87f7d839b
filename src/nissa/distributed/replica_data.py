"""Detection of ranks that read the same batches."""

from collections.abc import Mapping
from typing import Final

__all__ = ["SameData"]

_BATCHES: Final = 4
"""Number of different batches in a row that two ranks must share."""


class SameData:
    """Newest batches of each rank of a group.

    Batches that do not change from step to step tell nothing: they may be fixed noise, or one batch that is learned on purpose.

    Args:
        ranks: Ranks of the group.

    Attributes:
        groups: Groups of ranks that read the same batches; None until enough batches were seen.
        steps: Steps of these batches.
    """

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self._batches: dict[int, list[str]] = {rank: [] for rank in ranks}
        self.groups: tuple[tuple[int, ...], ...] | None = None
        self.steps: tuple[int, ...] = ()

    def add(self, step: int, batches: Mapping[int, str | None]) -> bool:
        """Add the digest of each rank's batch at a step; return whether ranks begin or cease to read the same data."""
        known = {rank: batch for rank, batch in batches.items() if batch is not None}
        if len(known) < len(self._batches):
            return False
        self.steps = (*self.steps, step)[-_BATCHES:]
        for rank, batch in known.items():
            self._batches[rank] = [*self._batches[rank], batch][-_BATCHES:]
        if len(self.steps) < _BATCHES:
            return False
        before, self.groups = self.groups, self._alike()
        return self.groups != (before or ())

    def _alike(self) -> tuple[tuple[int, ...], ...]:
        by_batches: dict[tuple[str, ...], list[int]] = {}
        for rank, batches in self._batches.items():
            if len(set(batches)) == len(batches):
                by_batches.setdefault(tuple(batches), []).append(rank)
        return tuple(tuple(ranks) for ranks in by_batches.values() if len(ranks) > 1)
