"""What a rule says when a trouble begins, and when it is over."""

from dataclasses import dataclass
from enum import StrEnum

from nissa.events import Severity


class Certainty(StrEnum):
    """How sure a rule is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule's word on one environment.

    Args:
        name: Of the red flag, for example ``"vanishing_gradients"``.
        raised: Whether the trouble begins; else it is over.
        up: Whether the flag is up after this change; another model may still hold it.
        seen: What was seen, in a few words: ``"Gradients of 3 layers fell to 1e-4 of their usual norm"``.
        certainty: How sure the rule is.
        advice: What to try.
        layers: Whom it concerns, worst first; empty where it is no matter of layers.
        value: The number that was judged, None where there is no single one.
        limit: What it was judged by.
        model_name: The watch it is about, None where there is only one or none.
        time_unix_nano: When the newest thing that was judged happened.
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
    model_name: str | None = None
    step: int | None = None
    epoch: int | None = None
    time_unix_nano: int = 0
    up: bool = False

    @property
    def sentence(self) -> str:
        """What was seen, how sure that is, and what to try."""
        return f"{self.seen} ({self.certainty}). {self.advice}"
