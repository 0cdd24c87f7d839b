"""Each statement of the document that the project began with has a place, a test and a note, and they exist."""

import ast
import re
from functools import cache
from typing import Final

from scripts.generate import ROOT
from tests.cases import for_each

PAGE: Final = ROOT / "docs" / "explanation" / "the-document.md"
SECTIONS: Final = 9
COLUMNS: Final = 4
_CODE: Final = re.compile(r"`([^`]+)`")


def sections() -> dict[str, list[list[str]]]:
    """Return the rows of each section's table, a list of cells each."""
    _, *parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return {head: _rows(body) for head, body in zip(parts[::2], parts[1::2], strict=True)}


def _rows(body: str) -> list[list[str]]:
    head, rule, *rows = [line for line in body.splitlines() if line.startswith("|")]
    assert (head, rule) == ("| statement | where | shown by | note |", "| --- | --- | --- | --- |")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


ROWS: Final = [(head, *row) for head, rows in sections().items() for row in rows]


@cache
def defined(path: str) -> frozenset[str]:
    """Return the names of the functions that a file defines."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_section_has_its_table() -> None:
    found = sections()
    assert [int(head.partition(".")[0]) for head in found] == list(range(1, SECTIONS + 1))
    assert all(found.values())


@for_each("row", ROWS, ids=lambda row: f"{row[0].partition('.')[0]}: {row[1][:60]}")
def test_every_row_says_where_by_which_test_and_why(row: tuple[str, ...]) -> None:
    assert len(row) == 1 + COLUMNS
    assert all(row)
    _, _, where, shown, _ = row
    places, tests = _CODE.findall(where), _CODE.findall(shown)
    assert places
    assert tests
    assert [place for place in places if not (ROOT / place).is_file()] == []
    for test in tests:
        path, separator, name = test.partition("::")
        assert separator
        assert name.startswith("test_")
        assert name in defined(path), test


def test_files_that_a_note_names_exist() -> None:
    notes = " ".join(row[-1] for row in ROWS)
    named = [each for each in _CODE.findall(notes) if each.startswith(("docs/", "src/", "tests/"))]
    assert named
    assert [each for each in named if not (ROOT / each).is_file()] == []


def test_what_was_done_otherwise_says_why() -> None:
    otherwise = [row[-1] for row in ROWS if "Done otherwise" in row[-1]]
    assert otherwise
    assert all(len(note.removeprefix("Done otherwise:").split()) >= 5 for note in otherwise)
