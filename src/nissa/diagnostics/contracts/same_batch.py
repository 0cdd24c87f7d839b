"""The same inputs at every step, as after ``next(iter(loader))`` within the loop.

Only epochs of several steps are judged: a step on the whole data set has the same inputs each time.
"""

import math
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Observation, ProgramContract, Streak
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig

_STEPS = 10
"""Steps between the first and the last of the equal inputs."""


class SameBatch(ProgramContract):
    """All inputs that were examined in an epoch are equal."""

    name = "same_batch"
    advice = "Iterate over the loader: `for x, y in loader`; next(iter(loader)) begins anew at each call."
    observations = 5
    of = "observed steps of one epoch"
    source = "PyTorch forum; TrainCheck (Jiang et al., OSDI 2025), errors in data loading"
    twin = "steps on the whole data set, one per epoch or without epochs; fixed noise or coordinates without epochs"
    forward = True
    explains = frozenset({"overfitting"})

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._epoch: int | None = None
        self._first: tuple[int, float] | None = None
        self._streak = Streak()

    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""
        digest = seen.signals.get("batch")
        if digest is None or math.isnan(digest) or seen.epoch is None:
            return None
        if seen.epoch != self._epoch or self._first is None:
            self._epoch, self._first = seen.epoch, (seen.step, digest)
            self._streak.count(bad=False)
            return None
        same = digest == self._first[1]
        if self._streak.count(bad=same) < self.observations - 1 or seen.step - self._first[0] < _STEPS:
            return None if same else FINE
        return Symptom(
            seen=f"All steps since step {self._first[0]} had the same inputs",
            certainty=Certainty.LIKELY,
            value=self._streak.length + 1,
            limit=self.observations,
        )
