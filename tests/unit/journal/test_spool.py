"""A spool keeps what was appended until it is delivered, in order, within its bound."""

import gzip
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.errors import JournalError
from nissa.journal import SIGNALS, Frame, Kind, Signal, Spool, destinations_of, frames, spools

TO: dict[Signal, str] = {signal: f"http://collector:4318/v1/{signal} (http/protobuf)" for signal in SIGNALS}
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    spool = Spool.create(folder, TO, limit_bytes=1 << 20, segment_bytes=2_000)
    yield spool
    spool.close()


def add(
    spool: Spool, name: str, items: int = 1, signal: Signal = "metrics", kind: Kind = "bulk", size: int = 0
) -> None:
    spool.append(signal, name.encode() + bytes(size), items, time_unix_nano=1_000 + items, kind=kind)


def name(frame: Frame | None) -> str | None:
    return None if frame is None else frame.payload.rstrip(b"\0").decode()


def drain(spool: Spool, signal: Signal = "metrics") -> list[str]:
    found = []
    while (frame := spool.peek(signal)) is not None:
        found.append(frame.payload.rstrip(b"\0").decode())
        spool.advance(frame)
    return found


def abandon(spool: Spool) -> None:
    """Release the lock and nothing else, as the death of a process does."""
    assert spool._lock is not None
    spool._lock.release()


def test_a_frame_comes_back_as_it_was_appended(spool: Spool) -> None:
    payload = gzip.compress(b"request")
    spool.append("traces", payload, 7, time_unix_nano=42, kind="lifecycle")
    frame = spool.peek("traces")
    assert frame is not None
    assert (frame.signal, frame.items, frame.time_unix_nano, frame.payload, frame.kind) == (
        "traces", 7, 42, payload, "lifecycle",
    )  # fmt: skip
    assert spool.peek("traces") == frame
    assert (spool.waiting("traces"), spool.waiting("logs")) == (7, 0)
    spool.advance(frame)
    assert (spool.peek("traces"), spool.waiting("traces")) == (None, 0)


def test_frames_of_both_kinds_are_delivered_in_the_order_of_their_appends(spool: Spool) -> None:
    kinds: list[Kind] = ["bulk", "lifecycle", "lifecycle", "bulk", "lifecycle", "bulk"]
    for number, kind in enumerate(kinds):
        add(spool, str(number), kind=kind)
    assert drain(spool) == ["0", "1", "2", "3", "4", "5"]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 900), st.sampled_from(["bulk", "lifecycle"])), max_size=12),
    limit=st.integers(0, 4_000),
)
def test_pending_frames_are_the_next_ones_whose_content_fits(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, Kind]], limit: int
) -> None:
    spool = Spool.create(tmp_path_factory.mktemp("s") / "spool", TO, segment_bytes=1_000)
    for size, kind in sizes:
        spool.append("metrics", gzip.compress(bytes(size)), 1, time_unix_nano=1, kind=kind)
    left = [size for size, _ in sizes]
    while left:
        frames = spool.pending("metrics", limit)
        found = [len(gzip.decompress(frame.payload)) for frame in frames]
        assert found == left[: len(found)]
        assert len(found) == 1 or sum(found) <= limit
        assert len(found) == len(left) or sum(left[: len(found) + 1]) > limit
        for frame in frames:
            spool.advance(frame)
        left = left[len(found) :]
        assert spool.waiting("metrics") == len(left)
    assert spool.pending("metrics", limit) == []
    spool.close()


def test_pending_frames_end_before_a_damaged_one(spool: Spool, folder: Path) -> None:
    for number in range(3):
        spool.append("metrics", gzip.compress(bytes([number])), 1, time_unix_nano=1)
    (path,) = folder.glob("*.spool")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    (first,) = spool.pending("metrics", 10_000)
    spool.advance(first)
    (last,) = spool.pending("metrics", 10_000)
    assert (gzip.decompress(first.payload), gzip.decompress(last.payload)) == (b"\0", b"\2")
    assert spool.damaged == {"metrics": 1}


def test_signals_have_cursors_of_their_own(spool: Spool) -> None:
    for number in range(100):
        add(spool, f"m{number}")
    add(spool, "t", signal="traces", kind="lifecycle")
    assert drain(spool, "traces") == ["t"]
    assert spool.waiting("metrics") == 100


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 9), st.sampled_from(["bulk", "lifecycle"])), max_size=12), st.data())  # fmt: skip
def test_the_cursor_survives_restarts(
    tmp_path_factory: pytest.TempPathFactory, given_frames: list[tuple[int, int, Kind]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s") / "spool"
    spool = Spool.create(folder, TO, segment_bytes=2_000)
    expected = []
    for number, (size, items, kind) in enumerate(given_frames):
        add(spool, f"{number}", items, kind=kind, size=size)
        expected.append((f"{number}", items))
        if data.draw(st.booleans()):
            frame = spool.peek("metrics")
            assert (name(frame), frame and frame.items) == expected.pop(0)
            assert frame is not None
            spool.advance(frame)
        if data.draw(st.booleans()):
            abandon(spool)
            again = Spool.take_over(folder, segment_bytes=2_000)
            assert again is not None
            spool = again
        assert spool.waiting("metrics") == sum(items for _, items in expected)
    assert drain(spool) == [each for each, _ in expected]
    spool.close()
    assert not folder.exists()


def test_delivered_segments_are_removed(spool: Spool, folder: Path) -> None:
    for number in range(20):
        add(spool, str(number), size=900)
    assert len([*folder.glob("*.spool")]) == 7
    assert len(drain(spool)) == 20
    assert len([*folder.glob("*.spool")]) == 1
    assert spool.size_bytes < 3_000


def test_kept_segments_are_removed_only_at_the_bound(folder: Path) -> None:
    spool = Spool.create(folder, TO, limit_bytes=20_000, segment_bytes=2_000, keep=True)
    for number in range(10):
        add(spool, str(number), size=900)
    assert len(drain(spool)) == 10
    assert [name(frame) for frame in frames(folder)] == [str(number) for number in range(10)]
    for number in range(10, 100):
        add(spool, str(number), size=900)
        drain(spool)
    assert spool.size_bytes <= 20_000
    assert not spool.dropped
    left = [int(name(frame) or "") for frame in frames(folder)]
    assert left == [*range(left[0], 100)]
    assert len(left) > 15
    spool.close()
    assert folder.exists()


def test_at_the_bound_the_oldest_bulk_frames_are_dropped_and_counted(folder: Path) -> None:
    spool = Spool.create(folder, TO, limit_bytes=40_000, segment_bytes=2_000)
    for number in range(100):
        add(spool, f"seed{number}", 1, signal="traces", kind="lifecycle", size=100)
        add(spool, f"step{number}", 5, size=900)
    assert spool.size_bytes <= 40_000
    assert drain(spool, "traces") == [f"seed{number}" for number in range(100)]
    dropped, rest = spool.dropped["metrics"], drain(spool)
    assert dropped + 5 * len(rest) == 500
    assert rest == [f"step{number}" for number in range(100 - len(rest), 100)]
    assert len(rest) > 15
    spool.close()


def test_lifecycle_frames_are_dropped_only_for_lifecycle_frames(folder: Path) -> None:
    spool = Spool.create(folder, TO, limit_bytes=20_000, segment_bytes=2_000)
    for number in range(30):
        add(spool, str(number), signal="logs", kind="lifecycle", size=900)
    kept = spool.waiting("logs")
    assert (kept + spool.dropped["logs"], kept > 15) == (30, True)
    for _ in range(5):
        add(spool, "step", 3, size=900)
    assert (spool.waiting("logs"), spool.dropped["metrics"] + spool.waiting("metrics")) == (kept, 15)
    assert spool.dropped["metrics"] > 0
    spool.close()


def test_a_frame_above_the_bound_drops_only_itself(folder: Path) -> None:
    spool = Spool.create(folder, TO, limit_bytes=10_000)
    add(spool, "small")
    add(spool, "large", 9, size=20_000)
    assert (drain(spool), spool.dropped) == (["small"], {"metrics": 9})
    spool.close()


def test_a_frame_that_was_dropped_while_it_was_sent_moves_no_cursor(folder: Path) -> None:
    spool = Spool.create(folder, TO, limit_bytes=10_000, segment_bytes=1_000)
    add(spool, "first", size=900)
    sending = spool.peek("metrics")
    assert sending is not None
    for number in range(20):
        add(spool, str(number), size=900)
    waiting = spool.waiting("metrics")
    spool.advance(sending)
    assert spool.waiting("metrics") == waiting
    assert drain(spool) == [str(number) for number in range(20 - waiting, 20)]
    spool.close()


@pytest.mark.parametrize("kind", ["bulk", "lifecycle"])
def test_damaged_frames_are_skipped_and_counted(folder: Path, kind: Kind) -> None:
    spool = Spool.create(folder, TO, segment_bytes=500)
    for number in range(9):
        add(spool, str(number), number + 1, kind=kind, size=150)
    first, second, third = sorted(folder.glob("*.spool"))
    for path, places in ((first, [2, 400]), (second, [250]), (third, [450])):
        data = bytearray(path.read_bytes())
        for place in places:
            data[place] ^= 255
        path.write_bytes(data)
    assert drain(spool) == ["1", "3", "5", "6", "7"]
    assert spool.damaged == {"metrics": 1 + 3 + 5 + 9}
    assert spool.waiting("metrics") == 0
    spool.close()


def test_a_segment_that_vanished_is_counted_and_the_others_are_delivered(spool: Spool, folder: Path) -> None:
    for number in range(9):
        add(spool, str(number), size=900)
    sorted(folder.glob("*.spool"))[1].unlink()
    assert drain(spool) == ["0", "1", "2", "6", "7", "8"]
    assert spool.damaged == {"metrics": 3}


def test_a_removed_folder_is_an_error_once_and_created_again(spool: Spool, folder: Path) -> None:
    for number in range(3):
        add(spool, str(number), 2)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(JournalError, match=r"removed while it was in use\."):
        add(spool, "again")
    assert (spool.waiting("metrics"), spool.dropped) == (6, {})
    add(spool, "again")
    assert destinations_of(folder) == TO
    assert drain(spool) == ["0", "1", "2", "again"]
    assert not (spool.dropped + spool.damaged)
    spool.close()
    assert not folder.exists()


def test_of_a_removed_folder_undelivered_frames_in_open_files_are_kept_and_others_counted(
    spool: Spool, folder: Path
) -> None:
    for number in range(8):
        add(spool, str(number), size=900)
    add(spool, "span", signal="traces", kind="lifecycle")
    spool.advance(spool.peek("metrics"))  # type: ignore[arg-type]  # there is one
    shutil.rmtree(folder)
    with pytest.raises(JournalError, match="with 5 items that were not delivered"):
        add(spool, "again")
    add(spool, "again")
    assert (drain(spool), drain(spool, "traces")) == (["6", "7", "again"], ["span"])
    assert spool.dropped == {"metrics": 5}


def test_frames_are_delivered_while_a_removed_folder_is_not_yet_noticed(spool: Spool, folder: Path) -> None:
    add(spool, "0")
    shutil.rmtree(folder)
    assert drain(spool) == ["0"]
    with pytest.raises(JournalError):
        add(spool, "again")
    add(spool, "again")
    assert drain(spool) == ["again"]
    assert not (spool.dropped + spool.damaged)


def test_a_removed_segment_is_an_error_once(spool: Spool, folder: Path) -> None:
    add(spool, "metric", 4)
    add(spool, "span", signal="traces")
    (folder / "metrics-bulk-000001.spool").unlink()
    with pytest.raises(JournalError, match="removed"):
        add(spool, "again")
    add(spool, "again")
    assert (drain(spool), drain(spool, "traces")) == (["metric", "again"], ["span"])


def test_a_folder_that_cannot_be_created_is_an_error_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"Not a directory.*NISSA_FILES__DIRECTORY"):
        Spool.create(tmp_path / "file" / "spool", TO)


def test_the_owner_excludes_others_and_is_named(spool: Spool, folder: Path) -> None:
    owner = json.loads((folder / "owner.lock").read_text())
    assert (owner["pid"], owner["uid"]) == (os.getpid(), os.getuid())
    with pytest.raises(JournalError, match=rf"in use by process {os.getpid()} on .*run id"):
        Spool.create(folder, TO)
    assert Spool.take_over(folder) is None
    assert spool.waiting("metrics") == 0


def test_the_same_run_continues_its_spool(spool: Spool, folder: Path) -> None:
    add(spool, "before")
    abandon(spool)
    again = Spool.create(folder, TO)
    add(again, "after")
    assert drain(again) == ["before", "after"]
    again.close()


def test_frames_for_another_destination_are_moved_aside(spool: Spool, folder: Path) -> None:
    add(spool, "before")
    abandon(spool)
    again = Spool.create(folder, {"metrics": "elsewhere"})
    assert again.peek("metrics") is None
    again.close()
    aside = folder.with_name("spool.1")
    assert spools(folder.parent) == [aside]
    assert destinations_of(aside) == TO
    assert [name(frame) for frame in frames(aside)] == ["before"]


def test_nothing_else_is_taken_over(tmp_path: Path, spool: Spool, folder: Path) -> None:
    assert Spool.take_over(tmp_path / "missing") is None
    assert Spool.take_over(tmp_path) is None
    abandon(spool)
    (tmp_path / "link").symlink_to(folder)
    assert Spool.take_over(tmp_path / "link") is None
    (folder / "destination.json").write_text("{")
    assert Spool.take_over(folder) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_spools_of_other_users_are_not_taken_over(spool: Spool, folder: Path) -> None:
    add(spool, "theirs")
    abandon(spool)
    os.chown(folder, 12_345, -1)
    assert Spool.take_over(folder) is None


def test_without_locks_nothing_is_taken_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    spool = Spool.create(folder, TO)
    add(spool, "x")
    assert Spool.take_over(folder) is None
    assert drain(spool) == ["x"]
    spool.close()


def test_a_closed_spool_keeps_what_is_not_delivered(spool: Spool, folder: Path) -> None:
    add(spool, "x", 3)
    spool.close()
    spool.close()
    with pytest.raises(JournalError, match="closed"):
        add(spool, "y")
    again = Spool.take_over(folder)
    assert again is not None
    assert (again.waiting("metrics"), again.destinations) == (3, TO)
    assert drain(again) == ["x"]
    again.close()
    assert not folder.exists()


def in_child(task: Any) -> Any:
    """Return what a function returns in a forked child."""
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: theirs.send(task()))
    child.start()
    result = ours.recv() if ours.poll(60) else None
    child.join()
    return result


def test_a_forked_child_neither_writes_nor_closes_it(spool: Spool, folder: Path) -> None:
    add(spool, "parent")
    head = spool.peek("metrics")
    assert head is not None

    def child() -> list[Any]:
        try:
            add(spool, "child")
        except JournalError as error:
            refused = str(error)
        spool.advance(head)
        seen = [refused, spool.peek("metrics"), spool.waiting("metrics"), Spool.take_over(folder)]
        spool.close()
        return seen

    refused, *rest = in_child(child)
    assert f"parent process {os.getpid()}" in refused
    assert rest == [None, 0, None]
    assert drain(spool) == ["parent"]


def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(folder: Path) -> None:
    ours, theirs = FORK.Pipe()

    def parent() -> None:
        spool = Spool.create(folder, TO)
        add(spool, "parent")
        if os.fork() == 0:  # lives on, as a worker of a data loader may
            theirs.recv()
            os._exit(0)
        os._exit(0)

    process = FORK.Process(target=parent)
    process.start()
    process.join()
    again = Spool.take_over(folder)
    ours.send("end")
    assert again is not None
    assert drain(again) == ["parent"]
    again.close()


def test_frames_are_listed_while_a_process_writes(spool: Spool, folder: Path) -> None:
    add(spool, "a", kind="lifecycle")
    add(spool, "b")
    add(spool, "s", signal="traces")
    path = folder / "metrics-bulk-000001.spool"
    with path.open("ab") as file:  # the first part of a frame
        file.write(path.read_bytes()[:30])
    damaged: list[Any] = []
    assert [name(frame) for frame in frames(folder, damaged)] == ["s", "a", "b"]
    (damage,) = damaged
    assert (str(damage), damage.cut, damage.items) == (f"spool/{path.name}:byte 43", True, 1)
    assert [*frames(folder / "missing")] == []


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12), st.data())
def test_damage_anywhere_loses_only_the_frames_that_it_hits_and_all_of_them_are_counted(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s") / "spool"
    spool = Spool.create(folder, TO, segment_bytes=600)
    for number, size in enumerate(sizes):
        add(spool, f"{number}:", size=size, kind="lifecycle" if number % 3 else "bulk")
    spool.close()
    listed = [*frames(folder)]
    path = data.draw(st.sampled_from(sorted(folder.glob("*.spool"))))
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start + 1, min(len(content), start + 60)))
    how = data.draw(st.sampled_from(["flipped", "missing", "zero"]))
    changed = {"flipped": bytes(each ^ 255 for each in content[start:end]), "missing": b"", "zero": bytes(end - start)}
    path.write_bytes(content[:start] + changed[how] + content[end:])
    spared = [
        frame.payload.rstrip(b"\0").decode()
        for frame in listed
        if f"{frame.kind}-{frame.position.segment:06}" not in path.name
        or frame.position.header.end <= start
        or frame.position.header.offset >= end
        or (
            how == "zero"
            and not any(content[max(start, frame.position.header.offset) : min(end, frame.position.header.end)])
        )
    ]
    again = Spool.take_over(folder)
    assert again is not None
    drained = drain(again)
    assert [each for each in drained if each in spared] == spared
    # Where bytes are missing, equal bytes that follow may take their place, and the frame is whole.
    assert drained == spared or how == "missing"
    assert again.waiting("metrics") == 0
    # At the end of a segment, no later header tells how many frames are missing, or that any are.
    assert again.damaged["metrics"] <= len(sizes) - len(drained)
    followed = any(
        f"{frame.kind}-{frame.position.segment:06}" in path.name and frame.position.header.offset >= end
        for frame in listed
    )
    if followed and how != "missing":
        assert again.damaged["metrics"] == len(sizes) - len(drained)
    again.close()
