"""Lines of whatever a run wrote: JSON Lines files, compressed ones, and spools."""

from collections.abc import Iterator
from pathlib import Path

from nissa.recordings.folders import is_folder
from nissa.recordings.jsonl_reader import DamagedLine, JsonLine, json_lines


def recorded_lines(path: Path, damaged: list[DamagedLine]) -> Iterator[JsonLine]:
    """Yield the lines of a file of JSON lines or the requests of a spool, as OTLP JSON values.

    Args:
        path: One of `nissa.recordings.folders.recorded_files`.
        damaged: Receives what cannot be read.
    """
    if path.suffix in {".jsonl", ".gz"} or not is_folder(path):
        return json_lines(path, damaged, replace=True)
    from nissa.recordings.spool_reader import spool_lines  # noqa: PLC0415 - protobuf is not needed for files

    return spool_lines(path, damaged)
