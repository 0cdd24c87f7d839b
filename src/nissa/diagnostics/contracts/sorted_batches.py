"""Batches of a single class each, of changing classes: the data are sorted and not shuffled.

The class of each sample is read from the gradient of cross entropy with respect to the output, whose only negative entry it is.
"""

import math
from collections import deque
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig

_SAMPLES = 8
_PURE = 0.99
_MOST = 0.9
"""Share of the batches that have one class."""


class SortedBatches(ProgramContract):
    """Nearly all batches have one class only, and the class changes over time."""

    name = "sorted_batches"
    advice = "Shuffle the data: DataLoader(..., shuffle=True), or a sampler that mixes the classes."
    observations = 20
    source = 'Bengio, "Practical recommendations for gradient-based training" (2012), on shuffling'
    twin = "data of which one class is rare, curricula that add classes, tasks one after the other with several classes each"
    forward = True
    explains = frozenset(
        {"loss_spike", "gradient_spike", "divergence", "learning_rate_too_high", "severe_class_imbalance"}
    )

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._newest: deque[int | None] = deque(maxlen=self.observations)

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        share, (samples, classes) = seen.signals.get("top_share", math.nan), seen.facts.sizes
        if math.isnan(share) or samples < _SAMPLES or classes < 2:  # noqa: PLR2004 - two classes
            return None
        self._newest.append(int(seen.signals["top_class"]) if share >= _PURE else None)
        if len(self._newest) < self.observations:
            return None
        pure = [each for each in self._newest if each is not None]
        if len(pure) < _MOST * len(self._newest) or len(set(pure)) < 2:  # noqa: PLR2004 - the class changes
            return FINE
        return Symptom(
            seen=f"Batches have one class each: {len(pure)} of the last {len(self._newest)} examined ones",
            certainty=Certainty.LIKELY,
            value=len(pure) / len(self._newest),
            limit=_MOST,
            evidence=(f"classes={sorted(set(pure))}", f"samples per batch={samples}"),
        )
