"""Locate the recorded files of a run."""

import stat
from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError
from nissa.journal import line_files, spools
from nissa.printable import printable

_PATTERNS: Final = ("*.jsonl", "*.jsonl.gz", "spool*/*.spool")
"""What a run writes to its folder: files of JSON lines, closed ones compressed, and segments of spools."""

HERE: Final = "A run without an exporter writes traces.jsonl, metrics.jsonl and logs.jsonl to nissa-runs/<run id>/."


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False if that cannot be found out, for example because the name is too long."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def recorded_files(folder: Path) -> list[Path]:
    """Return the JSON lines files in a folder, closed ones first, and the folders of its spools; each rank has its own.

    Entries that have the name of such a file, but cannot be read, are included: the reader lists them as damaged.

    Raises:
        ConfigurationError: The folder does not exist or contains no such files.
    """
    if not is_folder(folder):
        raise ConfigurationError(f"There is no folder {printable(str(folder))}. {HERE}")
    found = [*line_files(folder), *spools(folder)]
    if not found:
        raise ConfigurationError(f"No *.jsonl files and no spool in {printable(str(folder))}. {HERE}")
    return found


def find_run(folder: Path) -> Path:
    """Return a run's folder: ``folder`` itself, or its most recently written subfolder if it contains runs.

    Raises:
        ConfigurationError: The folder does not exist, or no run is in it or directly below it.
    """
    if not is_folder(folder):
        raise ConfigurationError(f"There is no folder {printable(str(folder))}. {HERE}")
    if any(any(folder.glob(pattern)) for pattern in _PATTERNS):
        return folder
    written = {
        folder / path.relative_to(folder).parts[0]: at
        for path in sorted(_all(folder), key=lambda path: _written_at(path) or 0)
        if (at := _written_at(path)) is not None
    }
    if not written:
        raise ConfigurationError(f"There is no run in {printable(str(folder))} or below it. {HERE}")
    return max(written, key=lambda path: written[path])


def _all(folder: Path) -> list[Path]:
    return [path for pattern in _PATTERNS for path in folder.glob(f"*/{pattern}")]


def _written_at(path: Path) -> int | None:
    """Return the time at which a file was last written; None if it is no file."""
    try:
        found = path.stat()
    except OSError:  # a link without a target, or a run that was just deleted
        return None
    return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None
