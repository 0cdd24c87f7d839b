"""Gradients that shrink on their way to the first layers, so that these do not learn.

The root mean square of a layer's gradient is compared with that of the layer with the largest one. The past of the same
layer is not a reference, since a badly initialised network never had larger gradients. Exact zeros are excluded, because
they indicate dead units. Biases are excluded, because before a normalisation their gradients are zero except for rounding.
Source: Hochreiter (1991); Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
networks" (2010).
"""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nissa.diagnostics.blocks import SampleBlock


class VanishingGradients(Rule):
    """Gradients of some layers are many orders of magnitude smaller than those of others."""

    name = "vanishing_gradients"
    anomaly = "vanishing"
    advice = "Use normalisation, residual connections, another activation or another initialisation."

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        moments = block.moments
        size = block.norm / np.sqrt(np.maximum(moments.count - moments.zeros, 1))
        judged = np.isfinite(size) & (moments.zeros < moments.count) & ~block.biases
        limits = self.rules.vanishing_ratio * size.max(axis=1, where=judged, initial=0.0)
        small = judged & (size < limits[:, np.newaxis])
        judgements: list[Judgement] = [FINE if known else None for known in judged.any(axis=1).tolist()]
        for row in np.flatnonzero(small.any(axis=1)):
            judgements[row] = _symptom(block, size[row], np.flatnonzero(small[row]), float(limits[row]))
        return judgements


def _symptom(block: "SampleBlock", size: "NDArray[np.float64]", small: "NDArray[np.intp]", limit: float) -> Symptom:
    small = small[np.argsort(size[small], kind="stable")]
    return Symptom(
        seen=f"Vanishing gradients in {in_layers(small)}",
        layers=block.named(small),
        value=float(size[small[0]]),
        limit=limit,
    )
