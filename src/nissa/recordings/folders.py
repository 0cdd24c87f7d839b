"""Locate the recorded files of a run."""

import stat
from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError
from nissa.printable import printable

SUFFIX: Final = ".jsonl"
"""File name suffix of recorded files."""

HERE: Final = "A run without an exporter writes traces.jsonl, metrics.jsonl and logs.jsonl to nissa-runs/<run id>/."


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False if that cannot be found out, for example because the name is too long."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def recorded_files(folder: Path) -> list[Path]:
    """Return the JSON lines files in a folder, sorted by name; each rank writes its own set of files.

    Entries that have the name of such a file, but cannot be read, are included: the reader lists them as damaged.

    Raises:
        ConfigurationError: The folder does not exist or contains no such files.
    """
    if not is_folder(folder):
        raise ConfigurationError(f"There is no folder {printable(str(folder))}. {HERE}")
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found:
        raise ConfigurationError(f"No *{SUFFIX} files in {printable(str(folder))}. {HERE}")
    return found


def find_run(folder: Path) -> Path:
    """Return a run's folder: ``folder`` itself, or its most recently written subfolder if it contains runs.

    Raises:
        ConfigurationError: The folder does not exist, or no run is in it or directly below it.
    """
    if not is_folder(folder):
        raise ConfigurationError(f"There is no folder {printable(str(folder))}. {HERE}")
    if any(folder.glob(f"*{SUFFIX}")):
        return folder
    written = {path: at for path in folder.glob(f"*/*{SUFFIX}") if (at := _written_at(path)) is not None}
    if not written:
        raise ConfigurationError(f"There is no run in {printable(str(folder))} or below it. {HERE}")
    return max(written, key=lambda path: written[path]).parent


def _written_at(path: Path) -> int | None:
    """Return the time at which a file was last written; None if it is no file."""
    try:
        found = path.stat()
    except OSError:  # a link without a target, or a run that was just deleted
        return None
    return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None
