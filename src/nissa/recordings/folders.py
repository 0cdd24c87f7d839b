"""Locate the recorded files of a run."""

from pathlib import Path
from typing import Final

from nissa.errors import ConfigurationError

SUFFIX: Final = ".jsonl"
"""File name suffix of recorded files."""

HERE: Final = "A run without an exporter writes traces.jsonl, metrics.jsonl and logs.jsonl to nissa-runs/<run id>/."


def recorded_files(folder: Path) -> list[Path]:
    """Return the JSON lines files in a folder, sorted by name; each rank writes its own set of files.

    Raises:
        ConfigurationError: The folder does not exist or contains no such files.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}. {HERE}")
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    if not found:
        raise ConfigurationError(f"No *{SUFFIX} files in {folder}. {HERE}")
    return found


def find_run(folder: Path) -> Path:
    """Return a run's folder: ``folder`` itself, or its most recently written subfolder if it contains runs.

    Raises:
        ConfigurationError: The folder does not exist, or no run is in it or directly below it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}. {HERE}")
    if any(folder.glob(f"*{SUFFIX}")):
        return folder
    written = {path: path.stat().st_mtime_ns for path in folder.glob(f"*/*{SUFFIX}")}
    if not written:
        raise ConfigurationError(f"There is no run in {folder} or below it. {HERE}")
    return max(written, key=lambda path: written[path]).parent
