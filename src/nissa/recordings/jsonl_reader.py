"""Reader of JSON Lines files: parses each line, skips damaged ones and lists them.

A killed process leaves its last line incomplete, so a damaged line must not make the rest of its file unreadable. Neither
must a file that cannot be read make the rest of its folder unreadable: it is listed as damaged too.
"""

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn, cast

from nissa.printable import printable_name

MOST_BYTES: Final = 2**28
"""Maximum length of a line; a longer one is damaged, so that a file without line ends does not exhaust memory."""

_COMPRESSED: Final = ".gz"
_GZIP: Final = 31
"""``wbits`` of zlib for data with a gzip header and trailer."""

_NO_FILE: Final = "it is no regular file"
_TOO_LONG: Final = f"it is longer than {MOST_BYTES // 2**20} MiB"
# Opening a FIFO would otherwise wait for a writer. Regular files ignore the flag; Windows does not have it.
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """Line or file that was skipped; ``str()`` returns ``traces.jsonl:7``.

    Args:
        file: Name of its file.
        number: Line number, from 1; 0 for the whole file.
        cut: Whether it is the incomplete last line of its file.
        reason: Reason, where it is not the content of the line.
    """

    file: str
    number: int
    cut: bool = False
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.number else f"{self.file} ({self.reason})"


@dataclass(frozen=True, slots=True)
class JsonLine:
    """Line that is valid JSON.

    Args:
        file: Name of its file.
        number: Line number, from 1.
        raw: The bytes of the line, without the line end.
        value: The parsed JSON.
    """

    file: str
    number: int
    raw: bytes
    value: Any

    def damaged(self) -> DamagedLine:
        """Return the entry for a line that is valid JSON, but not of the expected structure."""
        return DamagedLine(self.file, self.number)


def json_lines(path: Path, damaged: list[DamagedLine], *, replace: bool = False) -> Iterator[JsonLine]:
    """Yield the lines of a file in their order; one line is in memory at a time.

    Empty lines are skipped. Lines that are not valid JSON are skipped and added to ``damaged``, and so is a file that
    cannot be read: a FIFO, a folder or a link without a target, for example.

    Args:
        path: The file.
        damaged: Receives the damaged lines. A caller adds those whose structure it cannot use.
        replace: Whether lines are read leniently: invalid UTF-8 is replaced by U+FFFD, and the constants NaN and
            Infinity, which are not JSON, are accepted. Otherwise such a line is damaged.
    """
    name, number = printable_name(path.name), 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(iter(lambda: file.readline(MOST_BYTES), b""), 1):
                if len(raw) == MOST_BYTES and not raw.endswith(b"\n"):
                    _skip_line(file)
                    damaged.append(DamagedLine(name, number, reason=_TOO_LONG))
                elif raw.strip():
                    try:
                        value = _parsed(raw, replace=replace)
                    except (ValueError, RecursionError):  # RecursionError: brackets nested a thousand levels deep
                        damaged.append(DamagedLine(name, number, cut=not raw.endswith(b"\n")))
                    else:
                        yield JsonLine(name, number, raw.rstrip(), value)
    except (OSError, EOFError, zlib.error) as error:
        where = f" after line {number}" if number else ""
        damaged.append(DamagedLine(name, 0, reason=f"it cannot be read{where}: {_reason(error)}"))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    descriptor = os.open(path, _READ)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - the path is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, _NO_FILE)
        if path.suffix == _COMPRESSED:
            with gzip.open(file) as uncompressed:
                yield cast("IO[bytes]", uncompressed)
        else:
            yield file


def _skip_line(file: IO[bytes]) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
        pass


def _parsed(raw: bytes, *, replace: bool) -> Any:
    if replace:
        return json.loads(raw.decode("utf-8", errors="replace"))
    return json.loads(raw, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def decompressed(payload: bytes) -> bytes:
    """Return what was compressed with gzip, at most `MOST_BYTES`.

    Raises:
        ValueError: It is incomplete or larger.
        zlib.error: It is not compressed with gzip.
    """
    stream = zlib.decompressobj(_GZIP)
    data = stream.decompress(payload, MOST_BYTES)
    if not stream.eof:
        raise ValueError("it is incomplete or too large")
    return data
