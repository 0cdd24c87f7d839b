"""Gradients that shrink on their way to the first layers, so that those do not learn.

A network that is badly initialised has no better past to be compared with, so layers are compared with each other: the root
mean square of a layer's gradient with the largest one. Elements that are exactly zero are another matter (dead units), and so
are biases: before a normalisation their gradients are zero but for rounding.
Source: Hochreiter (1991); Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
networks" (2010).
"""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.rule import FINE, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured


class VanishingGradients(Rule):
    """Layers whose gradients are many orders smaller than those of others, or nearly nothing everywhere."""

    name = "vanishing_gradients"
    anomaly = "vanishing"
    advice = "Use normalisation, residual connections, another activation or another initialisation."

    def gradients(self, sample: "GradientsMeasured") -> Judgement:
        """Judge a sample."""
        moments = sample.moments
        size = moments.norm / np.sqrt(np.maximum(moments.count - moments.zeros, 1))
        weights = np.array([name.rpartition(".")[2] != "bias" for name in sample.names], dtype=bool)
        judged = np.isfinite(size) & (moments.zeros < moments.count) & weights
        if not judged.any():
            return None
        largest = float(size[judged].max())
        limit = self.rules.vanishing_ratio * largest
        small = judged & (size < limit)
        if not small.any():
            return FINE
        rows = np.flatnonzero(small)
        rows = rows[np.argsort(size[rows], kind="stable")]
        return Symptom(
            seen=f"Vanishing gradients in {in_layers(rows)}",
            layers=tuple(sample.names[row] for row in rows),
            value=float(size[rows[0]]),
            limit=limit,
        )
