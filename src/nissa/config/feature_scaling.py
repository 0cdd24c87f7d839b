"""How a measured number becomes one of a bounded vector: few transforms, each total and in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Transform = Callable[[float], float]
"""Takes any number but NaN, infinities included; ``str()`` says how in words."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What lies within two bounds stays as it is."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, value: float) -> float:
        """Return the value, at least ``low`` and at most ``high``."""
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"x, cut to {self.low:g} .. {self.high:g}"


@dataclass(frozen=True, slots=True)
class Saturate:
    """Nearly linear around 0, and 1 or -1 far from it."""

    half: float
    """The size that becomes one half."""

    def __call__(self, value: float) -> float:
        """Return ``value / (half + |value|)``."""
        return math.copysign(1.0, value) if math.isinf(value) else value / (self.half + abs(value))

    def __str__(self) -> str:
        return f"x / ({self.half:g} + abs(x))"


@dataclass(frozen=True, slots=True)
class Decades:
    """Powers of ten as equal steps, for what spans many of them; 0 and what is below come out as 0."""

    low: int
    high: int

    def __call__(self, value: float) -> float:
        """Return how far the value's logarithm is from ``low`` to ``high``, cut to 0 .. 1."""
        if value <= 0:
            return 0.0
        if math.isinf(value):
            return 1.0
        return min(max((math.log10(value) - self.low) / (self.high - self.low), 0.0), 1.0)

    def __str__(self) -> str:
        return f"(log10 x - {self.low}) / {self.high - self.low}, cut to 0 .. 1".replace("- -", "+ ")


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One number of a vector.

    Args:
        name: What it is called.
        low: It is never below.
        high: It is never above.
        missing: What stands there where nothing was measured, or NaN was.
        transform: How what was measured becomes the number.
        known: Name of the entry that says whether this one was measured (1) or is ``missing`` (0); None where it always
            is, or where ``missing`` says so by itself.
        meaning: What is measured.
    """

    name: str
    low: float
    high: float
    transform: Transform
    meaning: str
    missing: float = 0.0
    known: str | None = None

    def value(self, measured: float | None) -> float:
        """Return the number for what was measured, within ``low`` and ``high`` for whatever is given."""
        if measured is None or math.isnan(measured):
            return self.missing
        return min(max(self.transform(float(measured)), self.low), self.high)
