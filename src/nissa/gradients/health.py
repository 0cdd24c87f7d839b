"""Health score of the gradients of a step; `GradientHealth` documents the formula."""

from math import hypot
from typing import TYPE_CHECKING, Final

import numpy as np

from nissa.hub.measurements import GradientHealth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nissa.kernels.moments import Moments

VANISHING_SHARE: Final = 0.5
EXPLODING_SHARE: Final = 0.01


def assess(names: tuple[str, ...], moments: "Moments") -> GradientHealth:
    """Return the health of gradients; ``moments`` has one row per name."""
    present = moments.count > 0
    layers = int(present.sum())
    if layers == 0:
        return GradientHealth(score=None, global_norm=None, layers=0)
    vanishing = _named(names, moments.vanishing_fraction > VANISHING_SHARE)
    exploding = _named(names, moments.exploding_fraction > EXPLODING_SHARE)
    nonfinite = _named(names, moments.nonfinite > 0)
    return GradientHealth(
        score=_score(layers, len(vanishing), len(exploding), broken=bool(nonfinite)),
        global_norm=None if np.isnan(moments.global_norm) else float(moments.global_norm),
        layers=layers,
        vanishing=vanishing,
        exploding=exploding,
        nonfinite=nonfinite,
    )


def combined(parts: "Sequence[GradientHealth]") -> GradientHealth:
    """Return the health of all layers of several disjoint sets of parameters."""
    layers = sum(part.layers for part in parts)
    vanishing = tuple(name for part in parts for name in part.vanishing)
    exploding = tuple(name for part in parts for name in part.exploding)
    nonfinite = tuple(name for part in parts for name in part.nonfinite)
    norms = [part.global_norm for part in parts if part.global_norm is not None]
    return GradientHealth(
        score=_score(layers, len(vanishing), len(exploding), broken=bool(nonfinite)) if layers else None,
        global_norm=hypot(*norms) if norms else None,
        layers=layers,
        vanishing=vanishing,
        exploding=exploding,
        nonfinite=nonfinite,
    )


def _score(layers: int, vanishing: int, exploding: int, *, broken: bool) -> float:
    return 0.0 if broken else max(0.0, 1.0 - 0.5 * vanishing / layers - 0.8 * exploding / layers)


def _named(names: tuple[str, ...], rows: "NDArray[np.bool_]") -> tuple[str, ...]:
    return tuple(name for name, chosen in zip(names, rows, strict=True) if chosen)
