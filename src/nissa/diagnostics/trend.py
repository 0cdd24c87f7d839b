"""Whether validation accuracy is going somewhere: the events that a policy acts on.

The rule is that of the original: means of a rolling window are compared with the window before. Each finding is
reported when it begins, not again while it lasts.
"""

import math
from collections import deque
from itertools import islice
from statistics import fmean

from nissa.config.sections import DiagnosticsConfig
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.events import EventType


class Trend:
    """Remembers which finding held last, so that each is told once."""

    def __init__(self, config: DiagnosticsConfig) -> None:
        self._config = config
        self._holding: set[EventType] = set()
        # Of its own, since the history that a user configures may be shorter than two windows.
        self._accuracies: deque[float] = deque(maxlen=2 * config.rolling_window)

    def begins(self, snapshot: EpochSnapshot) -> list[tuple[EventType, dict[str, float]]]:
        """Return the findings that hold with the newest snapshot and did not before."""
        if "validation_accuracy" in snapshot.incomplete:  # windows on both sides of it are not next to each other
            self._accuracies.clear()
        accuracy = snapshot.validation_accuracy
        if accuracy is not None and math.isfinite(accuracy):
            self._accuracies.append(accuracy)
        found = dict(self._found(snapshot.plateau_length))
        new = [(kind, data) for kind, data in found.items() if kind not in self._holding]
        self._holding = set(found)
        return new

    def _found(self, plateau: int) -> list[tuple[EventType, dict[str, float]]]:
        found: list[tuple[EventType, dict[str, float]]] = []
        if plateau >= self._config.plateau_epochs:
            found.append((EventType.PLATEAU_DETECTED, {"plateau_length": plateau}))
        means = self._means()
        if means is None:
            return found
        before, now = means
        data = {"rolling_accuracy": now, "previous_rolling_accuracy": before, "rolling_delta": now - before}
        if now - before > self._config.improvement_delta:
            found.append((EventType.IMPROVEMENT_DETECTED, data))
        if before - now > self._config.degradation_delta:
            found.append((EventType.PERFORMANCE_DEGRADATION, data))
        return found

    def _means(self) -> tuple[float, float] | None:
        if len(self._accuracies) < 2 * self._config.rolling_window:
            return None
        window = self._config.rolling_window
        return fmean(islice(self._accuracies, window)), fmean(islice(self._accuracies, window, None))
