"""Validation accuracies of one environment: the baseline and the change of accuracy of its seeds."""

import math
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 2
"""Number of accuracies kept. An event may arrive after a validation with a later time, which needs the one before."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Validation accuracy before a seed began to blend.

    Args:
        accuracy: Accuracy of the newest validation before blending, None without such a validation.
        number: Number of that validation; only validations with a higher number are compared with it.
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
        """Add a validation. An accuracy that is NaN or infinite counts as not measured."""
        known = accuracy if accuracy is not None and math.isfinite(accuracy) else None
        self.newest, self.number = known, self.number + 1
        if known is not None:
            # Replace the list instead of appending: another thread may iterate over the old one.
            self._measured = [*self._measured[1 - _KEPT :], (at, known, self.number)]

    def baseline(self, at: int) -> Baseline:
        """Return the baseline of a seed that begins to blend at a time, nanoseconds since the Unix epoch."""
        for time, accuracy, number in reversed(self._measured):
            if time <= at:
                return Baseline(accuracy, number)
        return Baseline()

    def delta(self, start: Baseline) -> float | None:
        """Return the change of accuracy since a baseline, None until a later validation has measured one."""
        if start.accuracy is None or self.newest is None or self.number <= start.number:
            return None
        return self.newest - start.accuracy
