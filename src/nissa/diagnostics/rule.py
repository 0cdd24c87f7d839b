"""Interface of a rule: it judges blocks of steps or of gradient samples, or validations, one judgement per entry.

Whether that becomes a finding is not its business: `Latch` waits for confirmation, for recovery and for a cooldown.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from nissa.diagnostics.finding import Certainty
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock, StepBlock
    from nissa.diagnostics.snapshot import EpochSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """What looks bad; the fields are those of `Finding`."""

    seen: str
    certainty: Certainty = Certainty.LIKELY
    layers: tuple[str, ...] = ()
    value: float | None = None
    limit: float | None = None


class Verdict(Enum):
    """What a rule says otherwise."""

    FINE = "fine"
    """It was judged, and looks good."""

    UNCLEAR = "unclear"
    """It was judged, and looks neither good nor bad enough to change anything: between the two limits of a hysteresis."""


FINE: Final = Verdict.FINE
UNCLEAR: Final = Verdict.UNCLEAR

Judgement = Symptom | Verdict | None
"""None where a rule lacks what it needs: then there is no flag, neither raised nor not."""


class Rule(ABC):
    """One rule about one watch of one environment, or about an environment as a whole.

    A rule implements one or more of `steps`, `samples` and `epoch`; the others are never called. Its judgements follow
    three laws:

    - They do not depend on how a sequence is split into blocks: what a rule remembers, it carries from block to block.
    - Entries with ``missed > 0`` have lost neighbours before them. What compares an entry with the one before, or counts
      entries in a row, starts again there.
    - Where ``missed > 0`` in the first entry of all, the beginning is unknown. What compares with the beginning is then not
      judged: None.

    Attributes:
        name: Of the flag.
        advice: What to try.
        severity: How much an operator should care.
        anomaly: What a GRADIENT_ANOMALY calls it, None where it is not about gradients.
        immediate: Whether one bad observation is enough.
    """

    name: ClassVar[str]
    advice: ClassVar[str]
    severity: ClassVar[Severity] = Severity.WARNING
    anomaly: ClassVar[str | None] = None
    immediate: ClassVar[bool] = False

    def __init__(self, config: "DiagnosticsConfig") -> None:
        self.config = config
        self.rules = config.rules

    def steps(self, block: "StepBlock") -> Sequence[Judgement]:
        """Judge each step of a block, in order."""
        raise NotImplementedError

    def samples(self, block: "SampleBlock") -> Sequence[Judgement]:
        """Judge the gradients of each sampled step of a block, in order."""
        raise NotImplementedError

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        raise NotImplementedError


class Latch:
    """Whether a flag is up: raised and lowered only when that is confirmed, and not again at once.

    Args:
        confirmations: Bad judgements in a row that raise it.
        recoveries: Good ones in a row that lower it.
        cooldown: Judgements after it was lowered in which it is not raised.
    """

    __slots__ = ("_bad", "_confirmations", "_cooldown", "_good", "_recoveries", "_resting", "judged", "raised")

    def __init__(self, *, confirmations: int, recoveries: int, cooldown: int) -> None:
        self._confirmations = confirmations
        self._recoveries = recoveries
        self._cooldown = cooldown
        self._bad = self._good = self._resting = 0
        self.raised = False
        self.judged = False

    def interrupt(self) -> None:
        """Start counting again: judgements before and after an entry that was lost are not in a row."""
        self._bad = self._good = 0

    def changes(self, judgement: Judgement) -> bool:
        """Take a judgement; whether the flag goes up or down with it."""
        if judgement is None:
            return False
        self.judged = True
        self._resting = max(0, self._resting - 1)
        bad = isinstance(judgement, Symptom)
        self._bad = self._bad + 1 if bad else 0
        self._good = self._good + 1 if judgement is FINE else 0
        if self.raised:
            if self._good < self._recoveries:
                return False
            self._resting = self._cooldown
        elif self._bad < self._confirmations or self._resting:
            return False
        self.raised = not self.raised
        return True
