"""Format of a spool's segments: frames with checksums, each readable whatever happened to the others.

A frame is a header and a payload, each with a checksum. After damage the reader continues at the next intact header, which
it finds by the magic bytes and the checksum. The header states how many items the segment contained before it, so that lost
items are counted and not estimated.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Self
from zlib import crc32

Signal = Literal["traces", "metrics", "logs"]
"""Signal of OpenTelemetry."""

Kind = Literal["lifecycle", "bulk"]
"""Importance of a frame: bulk gives way first where space is short."""

SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")
KINDS: Final[tuple[Kind, ...]] = ("lifecycle", "bulk")

MAGIC: Final = b"\x9dNJ\x01"
"""First bytes of each frame; the last one is the version of the format."""

_HEADER: Final = struct.Struct("<4sIIIIIQQBB")
_CHECKED: Final = 8
"""Offset of the part of a header that its checksum covers."""

HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a frame.

    Args:
        payload_crc: CRC-32 of the payload.
        length: Bytes of the payload.
        items: Number of spans, metric points or log records.
        items_before: Number of items in the earlier frames of the segment: after damage, it shows what was lost.
        sequence: Number of the frame within its signal, counted over all segments.
        time_unix_nano: Time of the append.
        signal: Signal of the frame.
        kind: Kind of the frame.
        offset: First byte of the frame in its segment.
    """

    payload_crc: int
    length: int
    items: int
    items_before: int
    sequence: int
    time_unix_nano: int
    signal: Signal
    kind: Kind
    offset: int

    @property
    def payload_offset(self) -> int:
        """First byte of the payload."""
        return self.offset + HEADER_BYTES

    @property
    def end(self) -> int:
        """First byte after the frame."""
        return self.payload_offset + self.length

    @property
    def items_after(self) -> int:
        """Number of items up to and including this frame."""
        return self.items_before + self.items

    def encode(self) -> bytes:
        """Return the bytes of the header."""
        signal, kind = SIGNALS.index(self.signal), KINDS.index(self.kind)
        fields = self.payload_crc, self.length, self.items, self.items_before, self.sequence, self.time_unix_nano
        checked = _HEADER.pack(MAGIC, 0, *fields, signal, kind)[_CHECKED:]
        return MAGIC + struct.pack("<I", crc32(checked)) + checked


@dataclass(frozen=True, slots=True)
class Position:
    """Location of a frame in the spool.

    Args:
        segment: Number of its segment.
        header: Its header.
    """

    segment: int
    header: Header


@dataclass(frozen=True, slots=True)
class Frame:
    """Export request as it was appended.

    Args:
        signal: Its signal.
        items: Number of spans, metric points or log records.
        time_unix_nano: Time of the append, nanoseconds since the Unix epoch.
        payload: gzip-compressed serialized ``Export<Signal>ServiceRequest``.
        kind: ``lifecycle`` or ``bulk``.
        position: Location; meaningful only to its spool.
    """

    signal: Signal
    items: int
    time_unix_nano: int
    payload: bytes
    kind: Kind
    position: Position

    @classmethod
    def of(cls, segment: int, header: Header, payload: bytes) -> Self:
        """Return the frame of a header and its payload."""
        position = Position(segment, header)
        return cls(header.signal, header.items, header.time_unix_nano, payload, header.kind, position)


@dataclass(frozen=True, slots=True)
class Damage:
    """Part of a segment that is no frame.

    Args:
        offset: Its first byte.
        end: First byte after it.
        items: Number of lost items; at least 1 where no header states how many.
        cut: Whether it is the end of the segment: a process was killed there, or is writing.
    """

    offset: int
    end: int
    items: int
    cut: bool


def content_bytes(payload: bytes) -> int:
    """Return the size of gzip-compressed content, which its last four bytes state (RFC 1952, 2.3.1)."""
    return int.from_bytes(payload[-4:], "little")


def decode_header(data: bytes, offset: int = 0, *, base: int = 0) -> Header | None:
    """Return the header at an offset of ``data``; None if there is no intact one.

    Args:
        data: Bytes of a segment.
        offset: Where in ``data`` the header begins.
        base: Offset of ``data`` in the segment.
    """
    if len(data) - offset < HEADER_BYTES or data[offset : offset + len(MAGIC)] != MAGIC:
        return None
    _, crc, payload_crc, length, items, before, sequence, time, signal, kind = _HEADER.unpack_from(data, offset)
    checked = memoryview(data)[offset + _CHECKED : offset + HEADER_BYTES]
    if crc32(checked) != crc or signal >= len(SIGNALS) or kind >= len(KINDS):
        return None
    return Header(payload_crc, length, items, before, sequence, time, SIGNALS[signal], KINDS[kind], base + offset)


def intact(header: Header, payload: bytes | memoryview) -> bool:
    """Return whether a payload is the one that was written."""
    return len(payload) == header.length and crc32(payload) == header.payload_crc


def walk(data: bytes, start: int = 0, items: int = 0) -> Iterator[Header | Damage]:
    """Yield the headers of the intact frames of a segment in order, and the damage between them.

    Args:
        data: The whole segment.
        start: Offset of the first frame to yield.
        items: Number of items before ``start``.
    """
    view = memoryview(data)
    while start < len(data):
        damaged = decode_header(data, start)
        if damaged is not None and intact(damaged, view[damaged.payload_offset : damaged.end]):
            yield damaged
            start, items = damaged.end, damaged.items_after
            continue
        # A header whose payload is damaged may be followed by too few bytes: search behind the header, not the payload.
        header = _next_header(data, start + 1)
        if header is None:
            yield Damage(start, len(data), 1 if damaged is None else damaged.items, cut=True)
            return
        yield Damage(start, header.offset, max(1, header.items_before - items), cut=False)
        start, items = header.offset, header.items_before


def _next_header(data: bytes, start: int) -> Header | None:
    while (start := data.find(MAGIC, start)) >= 0:
        header = decode_header(data, start)
        if header is not None:
            return header
        start += 1
    return None
