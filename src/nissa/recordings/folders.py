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


def newest_run(parent: Path) -> Path:
    """Return the folder of the run that wrote last, below a folder of runs.

    Raises:
        ConfigurationError: There is none.
    """
    written = {path.parent: path.stat().st_mtime_ns for path in sorted(parent.glob(f"*/*{SUFFIX}"))}
    if not written:
        raise ConfigurationError(f"There are no runs in {parent}: name the folder of one. {HERE}")
    return max(written, key=lambda folder: max(path.stat().st_mtime_ns for path in folder.glob(f"*{SUFFIX}")))
