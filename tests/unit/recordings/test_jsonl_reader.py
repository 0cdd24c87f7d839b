from pathlib import Path

from nissa.recordings.jsonl_reader import DamagedLine, JsonLine, json_lines


def read(path: Path, *, replace: bool = False) -> tuple[list[JsonLine], list[DamagedLine]]:
    damaged: list[DamagedLine] = []
    return list(json_lines(path, damaged, replace=replace)), damaged


def test_lines_keep_their_number_and_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"k": 1}\r\n\n  \n[2]\n')
    found, damaged = read(path)
    assert found == [JsonLine("a.jsonl", 1, b'{"k": 1}', {"k": 1}), JsonLine("a.jsonl", 4, b"[2]", [2])]
    assert damaged == []


def test_damaged_lines_are_skipped_and_only_an_incomplete_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"k"\n1\n{"k": "v')
    found, damaged = read(path)
    assert [line.value for line in found] == [1]
    assert damaged == [DamagedLine("a.jsonl", 1), DamagedLine("a.jsonl", 3, cut=True)]
    assert [str(line) for line in (*damaged, found[0].damaged())] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:2"]


def test_a_last_line_without_a_line_end_is_read_if_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2")
    assert [line.value for line in read(path)[0]] == [1, 2]


def test_invalid_utf8_is_damage_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'"\xff"\n')
    assert read(path) == ([], [DamagedLine("a.jsonl", 1)])
    ((line,), damaged) = read(path, replace=True)
    assert (line.value, line.raw, damaged) == ("�", b'"\xff"', [])
