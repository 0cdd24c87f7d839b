"""A disk that is full, and is freed again: nothing is torn, nothing is lost that the caller kept."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nissa.errors import JournalError
from nissa.journal import FileJournal, Spool, frames, line_files
from tests.file_limit import set_limit, with_limit
from tests.unit.journal.writers import TO, number_of, payload


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, left: int) -> Path:
    """Leave so many bytes of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass
        file.truncate(file.tell() // 4096 * 4096 - left)
    return ballast


def append_until_full(append: Any) -> int:
    """Append numbers until it fails three times; return how many did not fail."""
    for number in range(10_000):
        try:
            append(number)
        except JournalError:
            for _ in range(2):
                with pytest.raises(JournalError, match=r"No space left on device\. Free space"):
                    append(number)
            return number
    raise AssertionError("the disk was never full")


def test_a_spool_on_a_full_disk_continues_when_it_is_freed(disk: Path) -> None:
    spool = Spool.create(disk / "spool", TO, segment_bytes=1 << 18)

    def append(number: int) -> None:
        spool.append("metrics", payload(number), 1, time_unix_nano=number + 1)

    ballast = fill(disk, 200_000)
    number = append_until_full(append)
    assert 5 < number < 40
    assert [number_of(frame.payload) for frame in frames(disk / "spool")] == [*range(number)]
    assert spool.waiting("metrics") == number
    for _ in range(3):  # delivery needs no space
        frame = spool.peek("metrics")
        assert frame is not None
        spool.advance(frame)
    ballast.unlink()
    for later in range(number, number + 10):
        append(later)
    assert spool._lock is not None
    spool._lock.release()
    damaged: list[Any] = []
    assert [number_of(frame.payload) for frame in frames(disk / "spool", damaged)] == [*range(number + 10)]
    again = Spool.take_over(disk / "spool")
    assert again is not None
    head = again.peek("metrics")
    assert (damaged, head and number_of(head.payload), again.waiting("metrics")) == ([], 3, number + 7)
    again.close()


def test_files_on_a_full_disk_continue_when_it_is_freed(disk: Path) -> None:
    journal = FileJournal.create(disk / "run", segment_bytes=100_000)

    def append(number: int) -> None:
        journal.append("metrics", json.dumps({"n": number, "text": "x" * 9_000}).encode(), 1)

    ballast = fill(disk, 50_000)
    number = append_until_full(append)
    assert 2 < number < 10
    content = (disk / "run" / "metrics.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert len(content.splitlines()) == number
    ballast.unlink()
    for later in range(number, 40):
        append(later)
    journal.close()
    found = []
    for path in line_files(disk / "run", "metrics"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            found += [json.loads(line)["n"] for line in file]
    assert found == [*range(40)]
    assert len([*(disk / "run").glob("*.gz")]) >= 3


def test_a_disk_that_is_full_from_the_start_is_an_error_with_the_fix(disk: Path) -> None:
    fill(disk, 0)
    for create in (lambda: Spool.create(disk / "spool", TO), lambda: FileJournal.create(disk / "run")):
        with pytest.raises(JournalError, match=r"No space left.*NISSA_FILES__DIRECTORY"):
            create()


def short_writes_to_a_spool(folder: Path) -> Any:
    spool = Spool.create(folder / "spool", TO)
    seen = []
    for number in range(6):
        try:
            spool.append("metrics", bytes([number]) * 3_000, 1, time_unix_nano=1)
        except JournalError:
            seen.append(number)
            set_limit()
    (path,) = (folder / "spool").glob("*.spool")
    return seen, [frame.payload[0] for frame in frames(folder / "spool")], path.stat().st_size


def test_short_writes_leave_nothing_in_a_spool(tmp_path: Path) -> None:
    assert with_limit(10_000, short_writes_to_a_spool, tmp_path) == [[3], [0, 1, 2, 4, 5], 5 * 3_042]


def short_writes_to_a_file(folder: Path) -> Any:
    journal = FileJournal.create(folder)
    seen = []
    for number in range(6):
        try:
            journal.append("logs", json.dumps([number, "x" * 3_000]).encode(), 1)
        except JournalError:
            seen.append(number)
            set_limit()
    return seen, [json.loads(line)[0] for line in (folder / "logs.jsonl").read_bytes().splitlines()]


def test_short_writes_leave_nothing_in_a_file(tmp_path: Path) -> None:
    assert with_limit(10_000, short_writes_to_a_file, tmp_path) == [[3], [0, 1, 2, 4, 5]]
