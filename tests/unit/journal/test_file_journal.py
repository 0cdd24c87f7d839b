"""Files of JSON lines: whole lines, rotated, compressed, bounded."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.errors import JournalError
from nissa.journal import FileJournal, Signal, line_files
from nissa.journal.compression import Compressor
from nissa.journal.file_journal import BULK_SHARES, MOST_THINNING

FILES: list[Signal] = ["traces", "metrics", "logs"]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FileJournal]:
    journal = FileJournal.create(tmp_path / "run")
    yield journal
    journal.close()


def line(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "text": os.urandom(size // 2).hex()}).encode() + b"\n"


def numbers(folder: Path, prefix: str) -> list[int]:
    """Return the numbers of all lines, in the order in which a reader finds them."""
    found = []
    for path in line_files(folder, prefix):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            found += [json.loads(each)["n"] for each in file]
    return found


def test_lines_are_in_the_documented_files(journal: FileJournal, tmp_path: Path) -> None:
    for signal in FILES:
        journal.append(signal, line(1), 1)
        journal.append(signal, b'{"n": 2, "without": "line end"}', 1)
        assert numbers(tmp_path / "run", signal) == [1, 2]
    assert sorted(path.name for path in line_files(tmp_path / "run")) == ["logs.jsonl", "metrics.jsonl", "traces.jsonl"]
    assert journal.paths["logs"] == tmp_path / "run" / "logs.jsonl"
    assert journal.size_bytes == sum(path.stat().st_size for path in line_files(tmp_path / "run"))


def test_files_rotate_and_closed_ones_are_compressed(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, "-rank3", segment_bytes=10_000)
    for number in range(100):
        journal.append("metrics", line(number, 900), 1)
    journal.close()
    names = [path.name for path in line_files(tmp_path, "metrics")]
    assert names == [*(f"metrics-rank3.{number:06}.jsonl.gz" for number in range(1, 10)), "metrics-rank3.jsonl"]
    assert numbers(tmp_path, "metrics") == [*range(100)]
    assert all((tmp_path / name).stat().st_size < 7_000 for name in names[:-1])
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".draft", ".lock"}] == []


@given(st.lists(st.tuples(st.sampled_from(FILES), st.integers(0, 700), st.booleans()), max_size=30))
def test_no_line_is_lost_or_repeated_over_rotations_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, appends: list[tuple[Signal, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = FileJournal.create(folder, segment_bytes=1_000)
    for number, (signal, size, restart) in enumerate(appends):
        journal.append(signal, line(number, size), 1)
        if restart:
            journal.close()
            journal = FileJournal.create(folder, segment_bytes=1_000)
    for signal in FILES:
        assert numbers(folder, signal) == [number for number, append in enumerate(appends) if append[0] == signal]
    journal.close()


@given(st.data())
def test_a_line_that_a_killed_process_left_incomplete_does_not_damage_the_next(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    torn = line(1)[: data.draw(st.integers(0, len(line(1))))]
    (folder / "traces.jsonl").write_bytes(line(0) + torn)
    journal = FileJournal.create(folder)
    journal.append("traces", line(2), 1)
    journal.close()
    first, *middle, last = (folder / "traces.jsonl").read_bytes().splitlines()
    assert (json.loads(first)["n"], json.loads(last)["n"]) == (0, 2)
    assert b"".join(middle) == torn.rstrip(b"\n")


def test_a_process_that_was_killed_during_compression_leaves_no_duplicate(tmp_path: Path) -> None:
    (tmp_path / "metrics.000001.jsonl").write_bytes(line(1))
    (tmp_path / "metrics.000001.jsonl.gz").write_bytes(gzip.compress(line(1)))
    (tmp_path / "metrics.000002.jsonl").write_bytes(line(2))
    (tmp_path / "metrics.000002.jsonl.gz.draft").write_bytes(b"half")
    assert numbers(tmp_path, "metrics") == [1, 2]
    journal = FileJournal.create(tmp_path)
    journal.append("metrics", line(3), 1)
    assert numbers(tmp_path, "metrics") == [1, 2, 3]
    journal.close()
    assert [path.name for path in line_files(tmp_path, "metrics")][:2] == [
        "metrics.000001.jsonl.gz", "metrics.000002.jsonl.gz",
    ]  # fmt: skip
    assert not [*tmp_path.glob("*.draft"), *tmp_path.glob("metrics.00*.jsonl")]


def test_an_append_compresses_only_a_part_of_a_large_file(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, segment_bytes=1 << 20)
    journal.append("metrics", line(0, 1 << 20), 1)
    before = None
    for number in range(1, 40):
        journal.append("metrics", line(number, 2_000), 1)
        if [*tmp_path.glob("*.gz")]:
            break
        drafts = [path.stat().st_size for path in tmp_path.glob("*.draft")]
        assert not before or drafts > before
        before = drafts
    assert 10 < number < 20  # 1 MiB in parts of 72 KiB
    assert numbers(tmp_path, "metrics") == [*range(number + 1)]
    journal.close()


def test_a_compression_that_fails_keeps_the_file_and_is_tried_again(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"content" * 1_000)
    blocking = tmp_path / "a.jsonl.gz.draft"
    blocking.mkdir()
    compressor = Compressor()
    compressor.add(source)
    compressor.work(1 << 20)
    assert source.exists()
    blocking.rmdir()
    compressor.add(tmp_path / "missing.jsonl")
    compressor.work(1 << 20)
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == b"content" * 1_000
    assert not source.exists()


def test_compression_at_the_end_is_bounded_and_leaves_the_original(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(os.urandom(3 << 20))
    compressor = Compressor()
    compressor.add(source)
    compressor.work(1 << 20)
    compressor.finish(0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    compressor.add(source)
    compressor.finish(60)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_thinning_doubles_as_the_bound_fills_so_that_a_long_run_fits(tmp_path: Path) -> None:
    limit = 400_000
    journal = FileJournal.create(tmp_path, limit_bytes=limit, segment_bytes=1 << 20)
    share = limit * 0.75 * BULK_SHARES["metrics"]
    changes: dict[int, float] = {}
    for step in range(3_000):
        if step % journal.thinning == 0:
            journal.append("metrics", line(step, 400), 1)
            changes.setdefault(journal.thinning, journal._files["metrics"].expected_bytes / share)
    assert journal.size_bytes <= limit
    assert not journal.dropped
    assert [*changes][:5] == [1, 2, 4, 8, 16]
    assert changes[2] == pytest.approx(0.5, abs=0.03)
    assert changes[4] == pytest.approx(0.75, abs=0.03)
    assert changes[8] == pytest.approx(0.875, abs=0.03)
    assert numbers(tmp_path, "metrics")[-1] > 2_900
    journal.close()
    again = FileJournal.create(tmp_path, limit_bytes=limit)
    assert again.thinning >= 4
    again.close()


def test_bulk_gives_way_at_the_bound_and_lifecycle_is_kept(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, limit_bytes=400_000, segment_bytes=1 << 20)
    for number in range(1_000):
        journal.append("metrics", line(number, 800), 3)
        journal.append("traces", line(number, 800), 2)
        journal.append("logs", line(number, 20), 1, kind="lifecycle")
    assert journal.size_bytes <= 400_000
    assert journal.thinning == MOST_THINNING
    assert numbers(tmp_path, "logs") == [*range(1_000)]
    metrics, traces = numbers(tmp_path, "metrics"), numbers(tmp_path, "traces")
    assert (metrics, traces) == (sorted({*metrics}), sorted({*traces}))
    assert journal.dropped == {"metrics": 3 * (1_000 - len(metrics)), "traces": 2 * (1_000 - len(traces))}
    assert (len(metrics) > 250, len(traces) > 50) == (True, True)
    journal.close()


def test_above_their_share_the_oldest_lifecycle_lines_are_removed(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, limit_bytes=100_000)
    for number in range(200):
        journal.append("traces", line(number, 400), 1, kind="lifecycle")
    kept = numbers(tmp_path, "traces")
    assert kept == [*range(200 - len(kept), 200)]
    assert (journal.dropped, len(kept) > 40) == ({"traces": 200 - len(kept)}, True)
    journal.append("traces", line(0, 90_000), 7, kind="lifecycle")
    assert (numbers(tmp_path, "traces"), journal.dropped["traces"]) == (kept, 200 - len(kept) + 7)
    journal.close()


def test_foreign_files_that_are_removed_at_the_bound_count_by_their_lines(tmp_path: Path) -> None:
    (tmp_path / "traces.000001.jsonl").write_bytes(line(0, 15_000) + line(1, 10))
    journal = FileJournal.create(tmp_path, limit_bytes=100_000)
    for number in range(2, 80):
        journal.append("traces", line(number, 500), 1, kind="lifecycle")
    assert journal.dropped["traces"] == 80 - len(numbers(tmp_path, "traces"))
    assert journal.dropped["traces"] >= 2
    journal.close()


def test_two_owners_write_to_files_of_their_own(journal: FileJournal, tmp_path: Path) -> None:
    other = FileJournal.create(tmp_path / "run")
    assert (journal.suffix, other.suffix) == ("", "-2")
    journal.append("logs", line(1), 1)
    other.append("logs", line(2), 1)
    assert numbers(tmp_path / "run", "logs") == [2, 1]
    other.close()


def test_removed_files_are_an_error_once_and_created_again(journal: FileJournal, tmp_path: Path) -> None:
    for signal in FILES:
        journal.append(signal, line(1), 5)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    (tmp_path / "run").rmdir()
    with pytest.raises(JournalError, match="removed while they were in use, with 15 items"):
        journal.append("metrics", line(2), 1)
    journal.append("metrics", line(2), 1)
    journal.append("logs", line(2), 1)
    assert (numbers(tmp_path / "run", "metrics"), numbers(tmp_path / "run", "logs")) == ([2], [2])
    assert journal.dropped == {"traces": 5, "metrics": 5, "logs": 5}


def test_a_file_that_is_removed_alone_costs_only_itself(journal: FileJournal, tmp_path: Path) -> None:
    for signal in FILES:
        journal.append(signal, line(1), 5)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(JournalError, match="with 5 items"):
        journal.append("metrics", line(2), 1)
    for signal in FILES:
        journal.append(signal, line(2), 1)
    assert [numbers(tmp_path / "run", signal) for signal in FILES] == [[1, 2], [2], [1, 2]]


def test_a_folder_that_cannot_be_created_is_an_error_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="NISSA_FILES__DIRECTORY"):
        FileJournal.create(tmp_path / "file" / "run")


def test_a_closed_journal_refuses_lines(journal: FileJournal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append("logs", line(1), 1)


def test_a_forked_child_neither_writes_nor_closes_it(journal: FileJournal, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            journal.append("logs", line(1), 1)
        except JournalError:
            journal.close()
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    journal.append("logs", line(2), 1)
    assert numbers(tmp_path / "run", "logs") == [2]
