"""Quantiles of the Beta distribution."""

from math import exp, lgamma, log, log1p
from typing import Final

_TINY: Final = 1e-300
_CLOSE: Final = 1e-15
_MOST_TERMS: Final = 500
_HALVINGS: Final = 60


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function ``I_x(a, b)``.

    Computed with the continued fraction of DLMF 8.17.22, evaluated by the algorithm of Lentz.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly here, so use I_x(a, b) = 1 - I_(1-x)(b, a)
        return 1 - beta_cdf(1 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    return front * _fraction(x, a, b)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the quantile of Beta(a, b) at a probability, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def _fraction(x: float, a: float, b: float) -> float:
    numerator, denominator = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    found = denominator
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _away(1 + term * denominator)
            numerator = _away(1 + term / numerator)
            step = numerator * denominator
            found *= step
        if abs(step - 1) < _CLOSE:
            break
    return found


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
