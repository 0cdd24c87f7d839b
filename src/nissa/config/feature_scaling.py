"""Transforms of measured values to bounded features, and the specification of a feature.

Each transform accepts every number except NaN, and ``str()`` returns its formula.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Transform = Callable[[float], float]
"""Function of any number except NaN, infinities included; ``str()`` returns its formula."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Identity, clipped to ``low`` and ``high``."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, value: float) -> float:
        """Return the value, at least ``low`` and at most ``high``."""
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"x, cut to {self.low:g} .. {self.high:g}"


@dataclass(frozen=True, slots=True)
class Saturate:
    """Softsign: nearly linear around 0, approaching 1 or -1 for large values."""

    half: float
    """Absolute value that maps to one half."""

    def __call__(self, value: float) -> float:
        """Return ``value / (half + |value|)``."""
        return math.copysign(1.0, value) if math.isinf(value) else value / (self.half + abs(value))

    def __str__(self) -> str:
        return f"x / ({self.half:g} + abs(x))"


@dataclass(frozen=True, slots=True)
class Decades:
    """Logarithmic scale from 10^``low`` to 10^``high``, for values that span many powers of ten; 0 for values <= 0."""

    low: int
    high: int

    def __call__(self, value: float) -> float:
        """Return ``(log10(value) - low) / (high - low)``, clipped to 0 .. 1."""
        if value <= 0:
            return 0.0
        if math.isinf(value):
            return 1.0
        return min(max((math.log10(value) - self.low) / (self.high - self.low), 0.0), 1.0)

    def __str__(self) -> str:
        return f"(log10 x - {self.low}) / {self.high - self.low}, cut to 0 .. 1".replace("- -", "+ ")


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Specification of one entry of a feature vector.

    Args:
        name: Name of the entry.
        low: Lower bound of the value.
        high: Upper bound of the value.
        transform: Maps the measured value to the entry.
        meaning: Description of the measured value.
        missing: Value of the entry if nothing or NaN was measured.
        known: Name of the mask entry: 1 if this entry was measured, 0 if it is ``missing``. None if it is always
            measured, or if ``missing`` cannot be a measured value.
    """

    name: str
    low: float
    high: float
    transform: Transform
    meaning: str
    missing: float = 0.0
    known: str | None = None

    def value(self, measured: float | None) -> float:
        """Return the entry for a measured value, always within ``low`` and ``high``; ``missing`` for None and NaN."""
        if measured is None or math.isnan(measured):
            return self.missing
        return min(max(self.transform(float(measured)), self.low), self.high)
