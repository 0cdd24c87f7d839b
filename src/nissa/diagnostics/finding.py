"""Finding: the report of a rule when a trouble begins or ends."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nissa.events import Severity

MOST_LAYERS: Final = 20
"""Maximum number of layers that an event or a brief names; a finding itself has all of them."""


class Certainty(StrEnum):
    """Confidence of a rule in a finding."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Report of one rule on one environment.

    Args:
        name: Name of the red flag, for example ``"vanishing_gradients"``.
        raised: True when the trouble begins, False when it ends.
        up: State of the flag after this change; the same rule on another model may still hold it up.
        seen: Short observation: ``"Gradients of 3 layers fell to 1e-4 of their usual norm"``.
        certainty: Confidence of the rule.
        advice: Suggested remedy.
        layers: Affected layers, worst first; empty for findings that are not about layers.
        value: Judged value, None for findings without a single value.
        limit: Limit of the value.
        evidence: Further facts and numbers that the finding rests on, each as ``name=value``.
        first_step: Step at which the trouble was first seen; None if no step is known. A finding is raised once it is
            confirmed, which is often later.
        model_name: Name of the watch, None for a single watch and for the environment as a whole.
        env_id: Environment; None for the default one, and before the finding is emitted.
        time_unix_nano: Time of the newest judged measurement.
    """

    name: str
    raised: bool
    seen: str
    certainty: Certainty
    advice: str
    severity: Severity = Severity.WARNING
    layers: tuple[str, ...] = ()
    value: float | None = None
    limit: float | None = None
    evidence: tuple[str, ...] = ()
    first_step: int | None = None
    model_name: str | None = None
    env_id: str | None = None
    step: int | None = None
    epoch: int | None = None
    time_unix_nano: int = 0
    up: bool = False

    @property
    def sentence(self) -> str:
        """Observation, certainty and advice in one text."""
        return f"{self.seen} ({self.certainty}). {self.advice}"
