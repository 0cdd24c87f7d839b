"""Faults, and what Nissa promises for each: the rows of the published table."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from benchmarks.facts import COLUMNS
from tests.stack.measured_rows import keep

INTO: Final = "FAULTS_INTO"
"""Variable with the file that measurements are written to."""
FIELDS: Final = ("fault", "door", "measured", "test", *COLUMNS)

_NOTHING_LOST = "nothing is lost"
_OLDER = "facts older than 1 s and metrics older than 6 s are kept; a later run sends them"


class Fault(StrEnum):
    """A fault, in the words of the table."""

    ABSENT = "collector absent from the start"
    KILLED = "collector killed, and started again"
    STOPPED = "collector stopped (SIGSTOP)"
    TOO_MANY = "collector answers 429"
    UNAVAILABLE = "collector answers 503"
    PARTIAL = "collector rejects some items (partial success)"
    GARBAGE = "collector answers a web page, or no HTTP at all"
    SLOW = "collector takes 3 s for an answer"
    DISK_FULL = "disk full, and freed"
    FOLDER_REMOVED = "run folder removed"
    SIGKILL = "SIGKILL"
    SIGTERM = "SIGTERM"
    SIGINT = "SIGINT"
    OS_EXIT = "os._exit()"
    EXCEPTION = "uncaught exception"
    MEMORY = "MemoryError"
    FORK = "child process: fork"
    SPAWN = "child process: spawn"
    FORKSERVER = "child process: forkserver"
    DYING_RANK = "two torchrun ranks, one of them dies"


PROMISES: Final[dict[Fault, str]] = {
    **dict.fromkeys(Fault, _NOTHING_LOST),
    Fault.PARTIAL: "nothing else is lost; what the collector rejects is counted as refused",
    Fault.SIGKILL: _OLDER,
    Fault.OS_EXIT: _OLDER,
    Fault.DYING_RANK: _OLDER,
    Fault.FORK: "nothing is lost, in parent and child",
    Fault.SPAWN: "nothing is lost, in parent and child",
    Fault.FORKSERVER: "nothing is lost, in parent and child",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table.

    Args:
        fault: The fault.
        door: Entry point of the training.
        measured: What the servers had afterwards.
        test: Test that measured it, as a node id without parameters.
    """

    fault: str
    door: str
    measured: str
    test: str

    def keep(self) -> None:
        """Write the row to the file that the environment names, if it names one, in place of an earlier one."""
        places = {str(fault): place for place, fault in enumerate(Fault)}
        keep(INTO, FIELDS, asdict(self), ["fault", "door"], lambda row: places[row["fault"]])
