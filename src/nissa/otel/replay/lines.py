"""The OTLP JSON files of a folder by signal, and their lines: each is one export request."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nissa.errors import ConfigurationError
from nissa.journal import SIGNALS, DamagedFrame, Signal, line_files, spools
from nissa.otel.replay.requests import is_request
from nissa.printable import printable
from nissa.recordings.folders import is_folder
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine, json_lines

_CUT: Final = "it is cut off, as the last line of a killed process may be; it is left out"
_NO_REQUEST: Final = "it is no OTLP JSON of this signal; it is left out"
_DAMAGED_FRAME: Final = "it is damaged; it is left out"
_RUNS: Final = ("*/traces*.jsonl", "*/spool*/*.spool")
"""What the folder of a run contains."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line, part of a spool, or file that cannot be sent; ``str()`` returns a sentence.

    Args:
        file: Its file's name.
        line: Its number, from 1; the number of its first byte in a spool; 0 for the whole file.
        reason: Why.
        cut: Whether it is the unfinished last line of its file, which cannot be repaired.
    """

    file: str
    line: int
    reason: str
    cut: bool

    @classmethod
    def of(cls, damaged: DamagedLine) -> Self:
        """Return a damaged line with the reason for which it is left out."""
        reason = f"{damaged.reason}; it is left out" if damaged.reason else _CUT if damaged.cut else _NO_REQUEST
        return cls(damaged.file, damaged.number, reason, damaged.cut)

    @classmethod
    def of_frame(cls, damaged: DamagedFrame) -> Self:
        """Return a damaged part of a spool; its line is the number of its first byte, from 1."""
        reason = damaged.reason or (_CUT if damaged.cut else _DAMAGED_FRAME)
        return cls(printable(damaged.file), damaged.offset + 1, reason, damaged.cut)

    def __str__(self) -> str:
        unit = "byte" if self.file.endswith(".spool") else "line"
        where = f"{self.file}, {unit} {self.line}" if self.line else self.file
        return f"{where}: {self.reason}."


def files_of(folder: Path) -> dict[Signal, list[Path]]:
    """Return a folder's files by signal, closed and compressed ones first; ranks have files of their own.

    Raises:
        ConfigurationError: There are neither files nor spools; the message says what is there instead.
    """
    shown = printable(str(folder))
    if not is_folder(folder):
        raise ConfigurationError(f"{shown} is no folder. Give the folder of a run, such as nissa-runs/<run id>.")
    found: dict[Signal, list[Path]] = {signal: line_files(folder, signal) for signal in SIGNALS}
    if any(found.values()) or spools(folder):
        return found
    runs = sorted({path.relative_to(folder).parts[0] for each in _RUNS for path in folder.glob(each)})
    hint = (
        f"It has the folders of {len(runs)} runs: give one of them, such as {printable(str(folder / runs[-1]))}."
        if runs
        else ("A run writes them where no exporter is configured; `run.directory` says where.")
    )
    raise ConfigurationError(f"{shown} has no traces.jsonl, metrics.jsonl or logs.jsonl, and no spool. {hint}")


def lines_of(path: Path, signal: str, damaged: list[DamagedLine]) -> Iterator[JsonLine]:
    """Yield the requests of a file in their order; lines that are none are added to ``damaged``."""
    for line in json_lines(path, damaged):
        if is_request(signal, line.value):
            yield line
        else:
            damaged.append(line.damaged())
