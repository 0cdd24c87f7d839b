"""Outcome of a run: what its processes recorded at their end, and whether those that recorded none still live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nissa.events import EventType
from nissa.journal import OwnerState
from nissa.recordings import LogRecord, Recording
from nissa.recordings.values import as_whole
from nissa.report.recorded_findings import detail, event_name

COMPLETED: Final = "completed"
ENDED: Final = "ended"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
KILLED: Final = "killed"
RUNNING: Final = "running"
OPEN: Final = "open"

LABELS: Final[Mapping[str, str]] = {
    COMPLETED: "Completed",
    ENDED: "Ended",
    FAILED: "Failed",
    INTERRUPTED: "Interrupted",
    KILLED: "Killed",
    RUNNING: "Running",
    OPEN: "No end recorded",
}
"""Outcomes as the page shows them."""

_INTERRUPTIONS: Final = frozenset({"KeyboardInterrupt", "SIGINT", "SIGTERM", "SIGHUP"})
_Process = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Outcome of a run.

    Args:
        word: ``completed`` (exit status 0), ``ended`` (without an error; the exit status is unknown), ``failed``,
            ``interrupted``, ``killed``, ``running``, or ``open``: no end was recorded, and whether a process lives is unknown.
        reason: Explanation, such as the error; empty if the run completed.
    """

    word: str
    reason: str

    @property
    def label(self) -> str:
        """Outcome as the page shows it."""
        return LABELS[self.word]


def outcome(recording: Recording) -> RunOutcome:
    """Return the outcome; a rank that was restarted is judged by its last process."""
    ends = _ends(recording)
    errors = [str(error) for end in ends.values() if end is not None and (error := detail(end.attributes, "error"))]
    failures = [error for error in errors if error not in _INTERRUPTIONS]
    if failures:
        return RunOutcome(FAILED, _several(failures, len(ends)))
    if errors:
        return RunOutcome(INTERRUPTED, _several(errors, len(ends)))
    missing = sum(end is None for end in ends.values())
    if missing or not ends:
        return _without_end(recording.owners, missing, len(ends))
    statuses = {as_whole(detail(end.attributes, "exit_status")) for end in ends.values() if end is not None}
    if statuses == {0}:
        return RunOutcome(COMPLETED, "")
    why = "The script ended the run without an error. How its process ended afterwards was not recorded."
    return RunOutcome(ENDED, why)


def _ends(recording: Recording) -> dict[_Process, LogRecord | None]:
    """Return the end of the last process of each rank; None if it has recorded none."""
    started, ended = (event_name(kind) for kind in (EventType.TRAINING_STARTED, EventType.TRAINING_ENDED))
    latest: dict[int | None, _Process] = {}
    found: dict[_Process, LogRecord] = {}
    for record in recording.logs:
        if record.name in {started, ended}:
            latest[record.process.rank] = record.process.identity
        if record.name == ended:
            found[record.process.identity] = record
    return {identity: found.get(identity) for identity in latest.values()}


def _without_end(owners: Sequence[OwnerState], missing: int, ranks: int) -> RunOutcome:
    which = f"{missing} of {ranks} ranks" if ranks > 1 else "the process"
    if OwnerState.ALIVE in owners:
        return RunOutcome(RUNNING, f"The run was in progress when this page was written: {which} had not ended.")
    if OwnerState.DEAD in owners and OwnerState.UNKNOWN not in owners:
        return RunOutcome(
            KILLED, f"No end was recorded, and {which} no longer {'exist' if ranks > 1 else 'exists'}: killed."
        )
    return RunOutcome(OPEN, f"No end was recorded for {which}: killed, or still running.")


def _several(errors: Sequence[str], ranks: int) -> str:
    """Return the first error, with the number of ranks that it is from if there are several."""
    return errors[0] if ranks == 1 else f"{errors[0]} ({len(errors)} of {ranks} ranks)"
