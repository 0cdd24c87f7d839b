"""Contract: a condition that every correct training keeps, checked on facts instead of statistics.

A contract judges facts about the program, which are collected at a few steps (see `nissa.gradients.program_audit`): numbers of
the forward pass at the first steps, every tenth until step 200, then every hundredth; facts about parameters at some of them. Each
contract has a minimum number of observations.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nissa.diagnostics.rule import Judgement, Rule

if TYPE_CHECKING:
    from nissa.diagnostics.blocks import StepBlock
    from nissa.hub.program_facts import ProgramFacts


class Contract(Rule):
    """Rule that checks a condition of the program.

    Attributes:
        observations: Minimum number of observations before it is judged bad.
        of: Kind of these observations.
        twin: The legitimate programs that resemble the fault, and raise no flag.
        source: Publication or documentation of the fault.
        forward: Whether it needs hooks in the forward pass, which a compiled model does not have.
    """

    observations: ClassVar[int]
    of: ClassVar[str] = "observed steps"
    twin: ClassVar[str]
    source: ClassVar[str]
    forward: ClassVar[bool] = False
    immediate = True  # a contract counts its own observations


@dataclass(frozen=True, slots=True)
class Observation:
    """Facts and values of one observed step.

    Args:
        idle: Whether the learning rates of all parameter groups are 0.
        epoch: Identity of its epoch; None outside epochs.
    """

    facts: "ProgramFacts"
    signals: Mapping[str, float]
    step: int
    idle: bool
    epoch: int | None


class ProgramContract(Contract):
    """Contract about single observed steps.

    Attributes:
        complete: Whether it needs facts about parameters, which are collected at fewer steps.
    """

    complete: ClassVar[bool] = False

    def steps(self, block: "StepBlock") -> Sequence[Judgement]:
        """Judge the steps of a block at which facts were collected."""
        judged: list[Judgement] = [None] * len(block)
        for row, facts in enumerate(block.programs):
            if facts is not None and (facts.complete or not self.complete):
                idle = bool(block.idle_rates[row])
                seen = Observation(facts, block.signals[row], int(block.steps[row]), idle, block.epochs[row])
                judged[row] = self.judge(seen)
        return judged

    @abstractmethod
    def judge(self, seen: Observation) -> Judgement:
        """Judge one observed step."""


class Streak:
    """Number of consecutive observations that break a contract."""

    def __init__(self) -> None:
        self.length = 0

    def count(self, *, bad: bool) -> int:
        """Add an observation, and return the number of bad ones in a row."""
        self.length = self.length + 1 if bad else 0
        return self.length


def some(names: Sequence[object], noun: str = "parameter") -> str:
    """Return "1 parameter" or "3 parameters"."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
