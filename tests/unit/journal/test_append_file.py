"""A record is whole or absent, on a disk that is really full too."""

import os
from pathlib import Path
from typing import Any

import pytest

from nissa.errors import JournalError
from nissa.journal.append_file import AppendFile
from tests.file_limit import set_limit, with_limit


def write_beyond_the_limit(folder: Path) -> list[Any]:
    path = folder / "f"
    file = AppendFile(path)
    seen: list[Any] = [file.append(b"a" * 600)]
    try:
        file.append(b"b" * 200, b"c" * 700)
    except JournalError as error:
        seen.append(str(error))
    seen += [path.stat().st_size, file.broken]
    set_limit()
    seen += [file.append(b"d" * 900), file.size]
    return seen


def test_a_short_write_is_removed_at_once_and_the_next_one_follows_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "f"
    first, error, size, broken, second, end = with_limit(1_000, write_beyond_the_limit, tmp_path)
    assert (first, size, broken, second, end) == (0, 600, False, 600, 1_500)
    assert error.startswith(f"Cannot write telemetry to {path}: File too large. Free space")
    assert path.read_bytes() == b"a" * 600 + b"d" * 900


def test_a_record_in_parts_is_continued_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "f")
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: os.write(descriptor, b"".join(parts)[:4]))
    file.append(b"abc", b"defgh")
    assert (tmp_path / "f").read_bytes() == b"abcdefgh"
    file.close()


def test_a_file_whose_rest_cannot_be_removed_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = AppendFile(tmp_path / "f")
    monkeypatch.setattr(os, "writev", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(JournalError, match="No space left"):
        file.append(b"a")
    assert file.broken


def test_a_removed_or_replaced_file_is_an_error(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "f")
    file.append(b"a")
    (tmp_path / "f").rename(tmp_path / "g")
    for _ in range(2):
        with pytest.raises(JournalError, match="removed while it was in use"):
            file.append(b"b")
        (tmp_path / "f").write_text("")
    assert ((tmp_path / "g").read_bytes(), (tmp_path / "f").read_bytes()) == (b"a", b"")
    file.close()
    file.close()


def test_with_fsync_a_record_is_on_the_disk_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "f").read_bytes()))
    for fsync in (False, True):
        file = AppendFile(tmp_path / "f", fsync=fsync)
        file.append(b"a")
        file.close()
    assert synced == [b"aa"]
