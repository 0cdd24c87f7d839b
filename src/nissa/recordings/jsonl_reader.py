"""Reader of JSON Lines files: parses each line, skips damaged ones and lists them.

A killed process leaves its last line incomplete, so a damaged line must not make the rest of its file unreadable.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """Line that was skipped; ``str()`` returns ``traces.jsonl:7``.

    Args:
        file: Name of its file.
        number: Line number, from 1.
        cut: Whether it is the incomplete last line of its file.
    """

    file: str
    number: int
    cut: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class JsonLine:
    """Line that is valid JSON.

    Args:
        file: Name of its file.
        number: Line number, from 1.
        raw: The bytes of the line, without the line end.
        value: The parsed JSON.
    """

    file: str
    number: int
    raw: bytes
    value: Any

    def damaged(self) -> DamagedLine:
        """Return the entry for a line that is valid JSON, but not of the expected structure."""
        return DamagedLine(self.file, self.number)


def json_lines(path: Path, damaged: list[DamagedLine], *, replace: bool = False) -> Iterator[JsonLine]:
    """Yield the lines of a file in their order; one line is in memory at a time.

    Empty lines are skipped. Lines that are not valid JSON are skipped and added to ``damaged``.

    Args:
        path: The file.
        damaged: Receives the damaged lines. A caller adds those whose structure it cannot use.
        replace: Whether invalid UTF-8 is replaced by U+FFFD; otherwise such a line is damaged.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                value = json.loads(raw.decode("utf-8", errors="replace") if replace else raw)
            except ValueError:
                damaged.append(DamagedLine(path.name, number, cut=not raw.endswith(b"\n")))
            else:
                yield JsonLine(path.name, number, raw.rstrip(), value)
