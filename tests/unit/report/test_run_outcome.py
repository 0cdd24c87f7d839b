"""What a report says of a run's end: "Completed" only where each process had the exit status 0."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from nissa.journal import OwnerState, states_of_owners
from nissa.journal.owner_lock import OwnerLock
from nissa.recordings import read
from nissa.report.run_outcome import LABELS, RunOutcome, outcome
from tests import otlp
from tests.cases import for_each

Told = dict[str, Any]


def record(kind: str, at: int, process: str, rank: int | None = None, **told: Any) -> str:
    resource = {"service.instance.id": process} | ({} if rank is None else {"dl.rank": rank})
    about = {f"nissa.event.{name}": value for name, value in told.items()}
    return otlp.logs(otlp.record(f"nissa.event.training_{kind}", at, about), resource=resource)


def of(folder: Path, *lines: str) -> RunOutcome:
    return outcome(read(otlp.write(folder, logs=lines)))


@for_each(
    "told, word, reason",
    [
        ({"exit_status": 0}, "completed", ""),
        ({}, "ended", "without an error"),
        ({"error": "exit status 3", "exit_status": 3}, "failed", "exit status 3"),
        ({"error": "ZeroDivisionError", "exit_status": 1}, "failed", "ZeroDivisionError"),
        ({"error": "KeyboardInterrupt"}, "interrupted", "KeyboardInterrupt"),
        ({"error": "SIGTERM"}, "interrupted", "SIGTERM"),
        ({"exit_status": "zero"}, "ended", "without an error"),
        ({"exit_status": False}, "ended", "without an error"),
    ],
)
def test_an_end_is_what_its_process_recorded(
    told: Told, word: str, reason: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = of(tmp_path_factory.mktemp("r"), record("started", 1, "p"), record("ended", 2, "p", **told))
    assert found.word == word
    assert reason in found.reason
    assert (found.label == "Completed") is (told.get("exit_status") == 0 and told["exit_status"] is not False)


def test_a_run_of_several_ranks_is_completed_if_all_of_them_are(tmp_path: Path) -> None:
    started = [record("started", 1, f"p{rank}", rank) for rank in range(2)]
    first = record("ended", 2, "p0", 0, exit_status=0)
    assert of(tmp_path / "a", *started, first, record("ended", 3, "p1", 1, exit_status=0)).word == "completed"
    assert of(tmp_path / "b", *started, first, record("ended", 3, "p1", 1)).word == "ended"
    failed = of(tmp_path / "c", *started, first, record("ended", 3, "p1", 1, error="ValueError", exit_status=1))
    assert (failed.word, failed.reason) == ("failed", "ValueError (1 of 2 ranks)")
    lost = of(tmp_path / "d", *started, first)
    assert (lost.word, "1 of 2 ranks" in lost.reason) == ("open", True)


def test_a_run_that_was_started_again_is_judged_by_its_last_process(tmp_path: Path) -> None:
    lines = [record("started", 1, "first"), record("ended", 2, "first", error="ValueError", exit_status=1)]
    again = [record("started", 3, "second"), record("ended", 4, "second", exit_status=0)]
    assert of(tmp_path / "a", *lines, *again).word == "completed"
    assert of(tmp_path / "b", *lines, again[0]).word == "open"


@pytest.mark.parametrize("name", [".owner.lock", "spool/owner.lock"])
def test_a_run_without_an_end_is_running_or_killed(tmp_path: Path, name: str) -> None:
    folder = otlp.write(tmp_path / "r", logs=[record("started", 1, "p")])
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    lock = OwnerLock.acquire(path)
    assert lock is not None
    assert outcome(read(folder)).word == "running"
    lock.release()  # as the end of a process does; a run that ends removes the file
    assert states_of_owners(folder) == (OwnerState.DEAD,)
    killed = outcome(read(folder))
    assert (killed.word, "no longer exists" in killed.reason) == ("killed", True)
    path.write_text(json.dumps({"pid": os.getpid(), "uid": 0, "host": f"not-{socket.gethostname()}"}))
    assert outcome(read(folder)).word == "open"
    path.unlink()
    assert outcome(read(folder)).word == "open"


def test_looking_at_the_owner_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".owner.lock"
    lock = OwnerLock.acquire(path)
    assert lock is not None
    before = path.read_bytes()
    assert states_of_owners(tmp_path) == (OwnerState.ALIVE,)
    lock.release()
    assert states_of_owners(tmp_path) == (OwnerState.DEAD,)
    assert path.read_bytes() == before
    assert OwnerLock.acquire(path) is not None


def test_each_outcome_has_a_label_of_its_own() -> None:
    assert len(set(LABELS.values())) == len(LABELS) == 7
