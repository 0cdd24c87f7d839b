"""Spools of a folder in a replay: frames are sent as they are stored."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from nissa.errors import JournalError
from nissa.journal import SIGNALS, DamagedFrame, Frame, Signal, Spool, destinations_of, frames, spools
from nissa.otel.replay.lines import Skipped


def segment_count(folder: Path, signal: Signal) -> int:
    """Return the number of a signal's segments in the spools of a folder."""
    return sum(len([*spool.glob(f"{signal}-*.spool")]) for spool in spools(folder))


def stored_frames(folder: Path, signal: Signal, skipped: list[Skipped]) -> Iterator[Frame]:
    """Yield a signal's frames in the spools of a folder, delivered or not; damaged ones are added to ``skipped``."""
    for spool in spools(folder):
        damaged: list[DamagedFrame] = []
        yield from frames(spool, damaged, signals=[signal])
        skipped += map(Skipped.of_frame, damaged)


def mark_delivered(folder: Path, destinations: Mapping[Signal, str]) -> None:
    """Move the cursors of the spools for these destinations to their ends, so that no later start delivers them again.

    Spools of living processes, and those that cannot be written, stay as they are. Nothing is removed.
    """
    for path in spools(folder):
        own = destinations_of(path)
        if own and own.items() <= destinations.items():
            with suppress(JournalError, OSError):
                _skip_all(path)


def _skip_all(path: Path) -> None:
    spool = Spool.take_over(path, keep=True)
    if spool is not None:
        for signal in SIGNALS:
            while (frame := spool.peek(signal)) is not None:
                spool.advance(frame)
        spool.close()
