"""Journal in memory, for a process that cannot write files: what is not delivered is lost with the process."""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from nissa.journal import Kind, Signal
from nissa.journal.framing import content_bytes

MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class MemoryFrame:
    """A request in memory, with the attributes of `nissa.journal.Frame` that a sink uses."""

    signal: Signal
    payload: bytes
    items: int


class MemoryJournal:
    """Queue per signal, bounded together; the oldest metrics give way first, then whatever is oldest.

    Attributes:
        dropped: Items per signal that were removed at the bound.
    """

    def __init__(self, limit_bytes: int = MAX_BYTES) -> None:
        self.dropped: Counter[Signal] = Counter()
        self._limit = limit_bytes
        self._frames: dict[Signal, deque[MemoryFrame]] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all requests."""
        return sum(len(frame.payload) for frames in self._frames.values() for frame in frames)

    def append(self, signal: Signal, payload: bytes, items: int, *, time_unix_nano: int, kind: Kind = "bulk") -> None:  # noqa: ARG002 - a spool's interface
        """Append a compressed request."""
        self._frames.setdefault(signal, deque()).append(MemoryFrame(signal, payload, items))
        while self.size_bytes > self._limit:
            frames = self._frames.get("metrics") or max(self._frames.values(), key=len)
            frame = frames.popleft()
            self.dropped[frame.signal] += frame.items

    def pending(self, signal: Signal, limit_bytes: int) -> list[MemoryFrame]:
        """Return the oldest requests that are not delivered, as many as have at most so many bytes of content."""
        found: list[MemoryFrame] = []
        for frame in self._frames.get(signal, ()):
            limit_bytes -= content_bytes(frame.payload)
            if found and limit_bytes < 0:
                break
            found.append(frame)
        return found

    def advance(self, frame: MemoryFrame) -> None:
        """Remove a request, unless it was removed at the bound meanwhile."""
        frames = self._frames.get(frame.signal)
        if frames and frames[0] is frame:
            frames.popleft()

    def waiting(self, signal: Signal) -> int:
        """Return the number of items that are not delivered."""
        return sum(frame.items for frame in self._frames.get(signal, ()))

    def close(self) -> None:
        """Do nothing."""
