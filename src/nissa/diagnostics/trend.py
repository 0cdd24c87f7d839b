"""Trends of validation accuracy and loss, as events for a policy: plateau, improvement and degradation.

The mean accuracy of a rolling window is compared with that of the previous window. Each trend is reported when it begins,
and not again while it lasts.
"""

import math
from collections import deque
from itertools import islice
from statistics import fmean

from nissa.config.sections import DiagnosticsConfig
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.events import EventType


class Trend:
    """Detector of trends, which remembers the current ones to report each once."""

    def __init__(self, config: DiagnosticsConfig) -> None:
        self._config = config
        self._holding: set[EventType] = set()
        # Separate from the history, whose configured length may be less than two windows.
        self._accuracies: deque[float] = deque(maxlen=2 * config.rolling_window)

    def begins(self, snapshot: EpochSnapshot) -> list[tuple[EventType, dict[str, float]]]:
        """Return the trends that begin with the newest snapshot."""
        if (
            "validation_accuracy" in snapshot.incomplete
        ):  # the windows before and after a lost accuracy are not adjacent
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
