"""Samples of which every gradient is exactly zero, from the beginning; shared by two contracts."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nissa.diagnostics.blocks import SampleBlock, StepBlock


class ZeroGradients:
    """Counter of samples whose gradients are all zero.

    A gradient of zero is legitimate once training is done, such as that of a hinge loss. A program that computes no gradients
    never had another one.

    Attributes:
        half: Whether the gradients are float16.
    """

    def __init__(self) -> None:
        self.half = False
        self._samples = 0
        self._seen = False

    def steps(self, block: "StepBlock") -> None:
        """Note the type of the gradients."""
        for facts in block.programs:
            if facts is not None and facts.complete:
                self.half = facts.half

    def samples(self, block: "SampleBlock") -> list[int]:
        """Return the number of samples so far if all of them were zero, else 0; per sample of a block."""
        zeros = block.zero_fraction
        known = np.isfinite(zeros)
        zero = np.asarray(known.any(axis=1) & ~(known & (zeros < 1)).any(axis=1)).tolist()
        counts = []
        for row, (is_zero, layers) in enumerate(zip(zero, block.layers.tolist(), strict=True)):
            self._seen |= (bool(layers) and not is_zero) or bool(block.missed[row] and not self._samples)
            self._samples += bool(layers)
            counts.append(0 if self._seen else self._samples)
        return counts
