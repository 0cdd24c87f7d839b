"""Interface of a rule, which returns one judgement per step, gradient sample or validation.

`Latch` turns judgements into findings: it waits for confirmation, for recovery and for a cooldown.
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
    from nissa.diagnostics.blocks import ReplicaBlock, SampleBlock, SkipBlock, StepBlock
    from nissa.diagnostics.snapshot import EpochSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """Bad judgement; its fields are documented at `Finding`."""

    seen: str
    certainty: Certainty = Certainty.LIKELY
    layers: tuple[str, ...] = ()
    value: float | None = None
    limit: float | None = None
    evidence: tuple[str, ...] = ()
    advice: str | None = None
    """Remedy for the very pattern that was seen; None for that of the rule."""


class Verdict(Enum):
    """Judgement without a symptom."""

    FINE = "fine"
    """Judged, and good."""

    UNCLEAR = "unclear"
    """Judged, and between the two limits of a hysteresis, so that the flag keeps its state."""


FINE: Final = Verdict.FINE
UNCLEAR: Final = Verdict.UNCLEAR

Judgement = Symptom | Verdict | None
"""Result of a rule for one entry. None if its inputs are missing; a flag that was never judged is not exported."""


class Rule(ABC):
    """Rule about one watch of one environment, or about an environment as a whole.

    A rule implements one or more of `steps`, `samples`, `skips` and `epoch`; the others are never called. Requirements on its
    judgements:

    - They do not depend on how a sequence is split into blocks. State is carried from block to block.
    - Entries with ``missed > 0`` have lost neighbours before them. Comparisons with the previous entry, and counts of
      consecutive entries, start again there.
    - If ``missed > 0`` in the very first entry, the beginning is unknown. A rule that compares with the beginning then
      returns None.

    Attributes:
        name: Name of the flag.
        advice: Suggested remedy.
        severity: Severity of the finding.
        anomaly: Name in GRADIENT_ANOMALY events, None for a rule that is not about gradients.
        immediate: Whether one bad judgement raises the flag without confirmation.
        one_flag: Whether all kinds of measurement share one flag; otherwise each has its own, and any raises the flag.
        explains: Names of the rules that would attribute the symptoms of this one to another cause. While this flag is up,
            theirs are not exported as raised.
    """

    name: ClassVar[str]
    advice: ClassVar[str]
    severity: ClassVar[Severity] = Severity.WARNING
    anomaly: ClassVar[str | None] = None
    immediate: ClassVar[bool] = False
    one_flag: ClassVar[bool] = False
    explains: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: "DiagnosticsConfig") -> None:
        self.config = config
        self.rules = config.rules

    def steps(self, block: "StepBlock") -> Sequence[Judgement]:
        """Judge each step of a block, in order."""
        raise NotImplementedError

    def samples(self, block: "SampleBlock") -> Sequence[Judgement]:
        """Judge the gradients of each sampled step of a block, in order."""
        raise NotImplementedError

    def skips(self, block: "SkipBlock") -> Sequence[Judgement]:
        """Judge measurements of skipped steps, in order."""
        raise NotImplementedError

    def replicas(self, block: "ReplicaBlock") -> Sequence[Judgement]:
        """Judge comparisons with other ranks, in order."""
        raise NotImplementedError

    def epoch(self, snapshot: "EpochSnapshot") -> Judgement:
        """Judge a validation."""
        raise NotImplementedError


class Latch:
    """State of a flag, which changes only after confirmation, so that single judgements do not make it flap.

    Args:
        confirmations: Consecutive bad judgements that raise the flag.
        recoveries: Consecutive good judgements that lower it.
        cooldown: Number of judgements after lowering in which it is not raised again.
    """

    __slots__ = ("_bad", "_confirmations", "_cooldown", "_good", "_recoveries", "_resting", "judged", "raised")

    def __init__(self, *, confirmations: int, recoveries: int, cooldown: int) -> None:
        self._confirmations = confirmations
        self._recoveries = recoveries
        self._cooldown = cooldown
        self._bad = self._good = self._resting = 0
        self.raised = False
        self.judged = False

    @property
    def bad(self) -> int:
        """Number of consecutive bad judgements up to now."""
        return self._bad

    def interrupt(self) -> None:
        """Restart the counts, since judgements before and after a lost entry are not consecutive."""
        self._bad = self._good = 0

    def changes(self, judgement: Judgement) -> bool:
        """Apply a judgement; return whether it raises or lowers the flag."""
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
