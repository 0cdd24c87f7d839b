"""The OTLP JSON files of a folder, read line by line: each line is one request, and no more than one is in memory."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.otel.export.files import SIGNALS
from nissa.otel.replay.requests import Request, is_request

_CUT: Final = "it is cut off, as the last line of a killed process may be; it is left out"
_NO_REQUEST: Final = "it is no OTLP JSON of this signal; it is left out"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that cannot be sent.

    Args:
        file: Its file's name.
        line: Its number, from 1.
        reason: Why.
        cut: Whether it is the unfinished last line of its file, which nobody can repair.
    """

    file: str
    line: int
    reason: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is a request, as it was read and as it was written."""

    request: Request
    raw: bytes


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Return a folder's files by signal; ranks have files of their own.

    Raises:
        ConfigurationError: There are none; the message says what is there instead.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder. Give the folder of a run, such as nissa-runs/<run id>.")
    found = {signal: sorted(folder.glob(f"{signal}*.jsonl")) for signal in SIGNALS}
    if any(found.values()):
        return found
    runs = sorted(each.parent.name for each in folder.glob("*/traces*.jsonl"))
    hint = (
        f"It has the folders of {len(runs)} runs: give one of them, such as {folder / runs[-1]}."
        if runs
        else ("A run writes them where no exporter is configured; `run.directory` says where.")
    )
    raise ConfigurationError(f"{folder} has no traces.jsonl, metrics.jsonl or logs.jsonl. {hint}")


def lines_of(path: Path, signal: str, skipped: list[Skipped]) -> Iterator[Line]:
    """Yield the requests of a file in their order; lines that are none are added to ``skipped``."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            request = _parsed(raw)
            if is_request(signal, request):
                yield Line(request, raw.rstrip())
            else:
                cut = request is None and not raw.endswith(b"\n")
                skipped.append(Skipped(path.name, number, _CUT if cut else _NO_REQUEST, cut))


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
