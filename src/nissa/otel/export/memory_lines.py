"""OTLP JSON lines in memory, for tests: neither files nor a network."""

from collections import Counter
from typing import Final

from nissa.journal import SIGNALS, Kind, Signal


class MemoryLines:
    """Lines per signal, with the methods of `nissa.journal.FileJournal` that a sink uses.

    Unbounded: what a test records is small. The export thread appends; any thread may read.

    Attributes:
        lines: Blocks of lines of each signal, in the order in which they were written.
        dropped: Empty, because nothing is.
        thinning: 1, because every sampled step is kept.
    """

    thinning: Final = 1

    def __init__(self) -> None:
        self.lines: Final[dict[Signal, list[bytes]]] = {signal: [] for signal in SIGNALS}
        self.dropped: Final[Counter[Signal]] = Counter()

    @property
    def size_bytes(self) -> int:
        """Bytes of all lines."""
        return sum(len(block) for blocks in self.lines.values() for block in blocks)

    def append(self, signal: Signal, lines: bytes, items: int, *, kind: Kind = "bulk") -> None:  # noqa: ARG002 - a journal's interface
        """Append a block of lines."""
        self.lines[signal].append(lines)

    def close(self) -> None:
        """Do nothing: the lines are read after the end of the run."""
