"""Where recordings lie."""

from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError

SUFFIX: Final = ".jsonl"
"""What the names of recorded files end with."""

HERE: Final = "A run without an exporter writes traces.jsonl, metrics.jsonl and logs.jsonl to nissa-runs/<run id>/."


def recorded_files(folder: Path) -> list[Path]:
    """Return the files of JSON lines in a folder, by name; several ranks write one of each kind.

    Raises:
        ConfigurationError: There is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}. {HERE}")
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    if not found:
        raise ConfigurationError(f"No *{SUFFIX} files in {folder}. {HERE}")
    return found


def find_run(folder: Path) -> Path:
    """Return a run's folder: the one given, or where it holds runs the one of them that wrote last.

    Raises:
        ConfigurationError: There is no such folder, or nothing in it or below it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}. {HERE}")
    if any(folder.glob(f"*{SUFFIX}")):
        return folder
    written = {path: path.stat().st_mtime_ns for path in folder.glob(f"*/*{SUFFIX}")}
    if not written:
        raise ConfigurationError(f"There is no run in {folder} or below it. {HERE}")
    return max(written, key=lambda path: written[path]).parent
