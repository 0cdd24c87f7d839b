"""Health score of the gradients of a step; `GradientHealth` documents the formula."""

from typing import TYPE_CHECKING, Final

import numpy as np

from nissa.hub.measurements import GradientHealth

if TYPE_CHECKING:
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
    score = 1.0 - 0.5 * len(vanishing) / layers - 0.8 * len(exploding) / layers
    return GradientHealth(
        score=0.0 if nonfinite else max(0.0, score),
        global_norm=None if np.isnan(moments.global_norm) else float(moments.global_norm),
        layers=layers,
        vanishing=vanishing,
        exploding=exploding,
        nonfinite=nonfinite,
    )


def _named(names: tuple[str, ...], rows: "NDArray[np.bool_]") -> tuple[str, ...]:
    return tuple(name for name, chosen in zip(names, rows, strict=True) if chosen)
