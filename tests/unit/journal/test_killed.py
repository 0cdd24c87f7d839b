"""A process that is killed at any moment loses nothing whose append returned."""

import gzip
import json
import random
from pathlib import Path

import pytest

from nissa.errors import JournalError
from nissa.journal import FileJournal, Spool, frames, line_files
from tests.unit.journal.writers import TO, file_writer, number_of, spool_writer, writer

QUICK = 20
MOMENTS = [pytest.param(QUICK, id="quick"), pytest.param(10 * QUICK, id="full", marks=pytest.mark.full)]


@pytest.mark.parametrize("kills", MOMENTS)
def test_a_spool_has_every_frame_whose_append_returned(tmp_path: Path, kills: int) -> None:
    folder = tmp_path / "spool"
    moments = random.Random(kills)  # noqa: S311 - repeatable
    start, expected = 0, 0
    for _ in range(kills):
        with writer(spool_writer, folder, start) as process:
            last = process.kill(moments.uniform(0, 0.03))
        spool = Spool.take_over(folder, segment_bytes=50_000)
        assert spool is not None
        found = [number_of(frame.payload) for frame in frames(folder)]
        head = spool.peek("metrics")
        if head is not None:
            # A frame may be there although its append had not returned, and be delivered again although its cursor was
            # written: both are the last one.
            assert number_of(head.payload) >= expected
            expected = number_of(head.payload)
            assert [number for number in found if number >= expected] == [*range(expected, found[-1] + 1)]
            assert last <= found[-1] <= last + 1
            start = found[-1] + 1
        else:
            start = last + 2
            expected = start
        spool._lock.release()  # type: ignore[union-attr]  # as if this process were killed too
    assert start > kills


@pytest.mark.parametrize("kills", MOMENTS)
def test_files_have_every_line_whose_append_returned(tmp_path: Path, kills: int) -> None:
    moments = random.Random(kills)  # noqa: S311 - repeatable
    start, sure = 0, []
    for _ in range(kills):
        with writer(file_writer, tmp_path, start) as process:
            last = process.kill(moments.uniform(0, 0.03))
        sure += [*range(start, last + 1)]
        start = last + 2
    found, torn = [], 0
    for path in line_files(tmp_path, "traces"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    torn += 1
                else:
                    assert number_of(bytes.fromhex(value["payload"])) == value["n"]
                    found.append(value["n"])
    assert found == sorted({*found})
    assert {*sure} <= {*found}
    assert len(found) - len(sure) + torn <= kills
    assert [*tmp_path.glob("*.gz")]


def test_a_spool_belongs_to_one_process_until_that_dies(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with writer(spool_writer, folder, 0) as process:
        process.wait()
        assert Spool.take_over(folder) is None
        with pytest.raises(JournalError, match=f"in use by process {process.pid} on "):
            Spool.create(folder, TO)
        process.kill(0)
    spool = Spool.take_over(folder)
    assert spool is not None
    spool.close()


def test_a_second_process_of_a_run_writes_to_files_of_its_own_until_the_first_dies(tmp_path: Path) -> None:
    with writer(file_writer, tmp_path, 0) as process:
        process.wait()
        second = FileJournal.create(tmp_path)
        assert second.suffix == "-2"
        second.append("traces", b"{}", 1)
        process.kill(0)
    third = FileJournal.create(tmp_path)
    assert third.suffix == ""
    third.close()
    second.close()
    assert (tmp_path / "traces-2.jsonl").read_bytes() == b"{}\n"
