"""Files of whole lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nissa.backends.append_file import LineFile
from tests.file_limit import set_limit, with_limit


def test_each_write_is_on_disk_at_once(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.jsonl")
    assert file.write("grün\n") == 5
    assert (tmp_path / "a.jsonl").read_bytes() == "grün\n".encode()
    file.flush()
    file.close()
    file.close()
    assert file.closed


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    for text in ("one\n", "two\n"):
        file = LineFile(tmp_path / "a.jsonl")
        file.write(text)
        file.close()
    assert (tmp_path / "a.jsonl").read_text() == "one\ntwo\n"


def test_what_the_system_takes_only_in_part_is_written_in_several_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    LineFile(tmp_path / "a.jsonl").write("0123456789\n")
    assert (tmp_path / "a.jsonl").read_text() == "0123456789\n"


def write_beyond_the_limit(folder: Path) -> list[str | None]:
    file = LineFile(folder / "a.jsonl")
    failed: list[str | None] = []
    for text in ("one\n", "2" * 100, "three\n"):
        try:
            file.write(text)
        except OSError as error:
            failed.append(error.strerror)
            set_limit()
    return failed


def test_a_line_that_does_not_fit_on_the_disk_is_removed_and_later_ones_are_whole(tmp_path: Path) -> None:
    assert with_limit(50, write_beyond_the_limit, tmp_path) == ["File too large"]
    assert (tmp_path / "a.jsonl").read_text() == "one\nthree\n"


def test_a_process_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from nissa.backends.append_file import LineFile\n"
        "file = LineFile(Path(sys.argv[1]))\n"
        "for number in range(50): file.write('x' * 20_000 + '\\n')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.jsonl")], check=False, timeout=60)
    assert done.returncode == -9
    found = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [len(line) for line in found] == [20_000] * 50


def test_a_link_is_followed_only_on_request(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(OSError, match="link is a symbolic link, which is not followed"):
        LineFile(link)
    assert not target.exists()
    LineFile(link, follow=True).write("line\n")
    assert target.read_text() == "line\n"
