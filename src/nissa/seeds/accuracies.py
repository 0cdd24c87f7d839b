"""Validation accuracies of one environment, as far as its seeds are compared with them."""

import math
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 2
"""An event may arrive after a validation that came later, so the one before is kept too."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The accuracy that a seed started from.

    Args:
        accuracy: Of the newest validation before it began to blend, None where there was none.
        number: Number of that validation; later ones are compared with it.
    """

    accuracy: float | None = None
    number: int = 0


@dataclass(slots=True)
class Accuracies:
    """The newest validation accuracies of one environment.

    Attributes:
        newest: Accuracy of the newest validation, None where it measured none.
        number: Number of validations.
    """

    newest: float | None = None
    number: int = 0
    _measured: list[tuple[int, float, int]] = field(default_factory=list)

    def add(self, accuracy: float | None, at: int) -> None:
        """Add a validation; an accuracy that is not finite was not measured."""
        known = accuracy if accuracy is not None and math.isfinite(accuracy) else None
        self.newest, self.number = known, self.number + 1
        if known is not None:
            # A new list instead of an append: another thread may read the old one.
            self._measured = [*self._measured[1 - _KEPT :], (at, known, self.number)]

    def baseline(self, at: int) -> Baseline:
        """Return what a seed starts from that begins to blend at a time."""
        for time, accuracy, number in reversed(self._measured):
            if time <= at:
                return Baseline(accuracy, number)
        return Baseline()

    def delta(self, start: Baseline) -> float | None:
        """Return the change of accuracy since a baseline, None until a validation after it has measured one."""
        if start.accuracy is None or self.newest is None or self.number <= start.number:
            return None
        return self.newest - start.accuracy
