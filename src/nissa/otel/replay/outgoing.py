"""Content of a run's files and spools in the requests in which it is sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nissa.journal import DamagedFrame, frames
from nissa.otel.export.encoding import MAX_REQUEST_BYTES as MOST_BYTES
from nissa.otel.replay.lines import lines_of
from nissa.otel.replay.requests import Request, count, joined, portions
from nissa.printable import printable_name
from nissa.recordings.folders import is_folder
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine

_MOST_LINES: Final = 512
"""Lines of spans or log records, which hold one each, that go as one request."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request.

    Args:
        items: Number of spans, metric points or log records.
        request: OTLP JSON of lines; None for a frame of a spool.
        payload: Payload of a frame: serialized and compressed; empty for lines.
    """

    items: int
    request: Request | None = None
    payload: bytes = b""


def outgoing(signal: str, paths: list[Path], damaged: list[DamagedLine]) -> Iterator[Outgoing]:
    """Yield the requests of a signal in their order.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        paths: Files of JSON lines and folders of spools; a process may still write to them.
        damaged: Receives what cannot be read.
    """
    folders = [path for path in paths if path.name.startswith("spool") and is_folder(path)]
    lines = (line for path in paths if path not in folders for line in lines_of(path, signal, damaged))
    for request in _requests(signal, lines):
        yield Outgoing(count(signal, request), request)
    for folder in folders:
        yield from _frames(signal, folder, damaged)


def _frames(signal: str, folder: Path, damaged: list[DamagedLine]) -> Iterator[Outgoing]:
    """Yield the frames of a spool, delivered or not: what the collector has of them keeps its ids."""
    broken: list[DamagedFrame] = []
    for frame in frames(folder, broken):
        if frame.signal == signal:
            yield Outgoing(frame.items, payload=frame.payload)
    # Frames of all signals are read, so that each damaged one is seen three times.
    damaged += [_damaged(each) for each in broken if Path(each.file).name.startswith(f"{signal}-")]


def _damaged(frame: DamagedFrame) -> DamagedLine:
    reason = frame.reason or ("" if frame.cut else f"it is damaged at byte {frame.offset}")
    return DamagedLine(printable_name(frame.file), 0, cut=frame.cut, reason=reason)


def _requests(signal: str, lines: Iterator[JsonLine]) -> Iterator[Request]:
    """Yield what is sent at once: many small lines together, and a large one in portions.

    Metrics are not put together: what Prometheus refuses, it refuses by the request.
    """
    held: list[JsonLine] = []
    size = 0
    for line in lines:
        if held and (signal == "metrics" or len(held) >= _MOST_LINES or size + len(line.raw) > MOST_BYTES):
            yield from _sent(signal, held)
            held, size = [], 0
        held.append(line)
        size += len(line.raw)
    if held:
        yield from _sent(signal, held)


def _sent(signal: str, held: list[JsonLine]) -> Iterator[Request]:
    first, *others = held
    if others:
        yield joined(signal, [line.value for line in held])
    elif len(first.raw) <= MOST_BYTES:
        yield first.value
    else:
        yield from portions(signal, first.value, MOST_BYTES)
