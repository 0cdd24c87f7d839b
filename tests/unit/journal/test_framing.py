"""Frames stay readable whatever happened to the bytes of the others."""

import struct
from dataclasses import replace
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from nissa.journal.framing import HEADER_BYTES, MAGIC, Damage, Header, decode_header, walk

PAYLOADS = st.lists(st.tuples(st.binary(max_size=200), st.integers(1, 5000)), min_size=1, max_size=8)


def segment(payloads: list[tuple[bytes, int]]) -> tuple[bytes, list[Header]]:
    """Return the bytes of a segment and the headers of its frames."""
    data, headers, items = b"", [], 0
    for number, (payload, count) in enumerate(payloads):
        crc = crc32(payload)
        headers.append(Header(crc, len(payload), count, items, number, 10**18 + number, "metrics", "bulk", len(data)))
        data += headers[-1].encode() + payload
        items += count
    return data, headers


@given(PAYLOADS)
def test_a_segment_is_read_as_it_was_written(payloads: list[tuple[bytes, int]]) -> None:
    data, headers = segment(payloads)
    assert list(walk(data)) == headers


def test_the_format_is_the_documented_one() -> None:
    data, _ = segment([(b"payload", 3)])
    assert data[:4] == MAGIC
    assert struct.unpack_from("<I", data, 4) == (crc32(data[8:HEADER_BYTES]),)
    assert struct.unpack_from("<IIIIQQBB", data, 8) == (crc32(b"payload"), 7, 3, 0, 0, 10**18, 1, 1)
    assert (data[HEADER_BYTES:], HEADER_BYTES) == (b"payload", 46 - 4)


@given(PAYLOADS, st.data())
def test_a_flipped_byte_loses_only_the_frame_that_it_hits(
    payloads: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    whole, headers = segment(payloads)
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    (hit,) = (header for header in headers if header.offset <= place < header.end)
    found = list(walk(bytes(flipped)))
    assert [each for each in found if isinstance(each, Header)] == [each for each in headers if each != hit]
    (damage,) = (each for each in found if isinstance(each, Damage))
    assert (damage.offset, damage.end) == (hit.offset, hit.end)
    if hit is not headers[-1] or place >= hit.payload_offset:
        assert damage.items == hit.items


@given(PAYLOADS, st.data())
def test_a_part_that_is_missing_loses_only_the_frames_that_it_belonged_to(
    payloads: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    whole, headers = segment(payloads)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    spared = [header.sequence for header in headers if header.end <= start or header.offset >= end]
    found = [each for each in walk(whole[:start] + whole[end:]) if isinstance(each, Header)]
    # Where the bytes before the gap equal the bytes at its end, what is left is one more whole frame.
    assert [each.sequence for each in found if each.sequence in spared] == spared
    assert len(found) <= len(spared) + 1
    assert all(replace(each, offset=headers[each.sequence].offset) == headers[each.sequence] for each in found)


@given(PAYLOADS, st.binary(max_size=300), st.data())
def test_foreign_bytes_between_frames_lose_none(
    payloads: list[tuple[bytes, int]], foreign: bytes, data: st.DataObject
) -> None:
    whole, headers = segment(payloads)
    place = data.draw(st.sampled_from([0, *(header.end for header in headers)]))
    found = [each for each in walk(whole[:place] + foreign + whole[place:]) if isinstance(each, Header)]
    assert [each.sequence for each in found] == [each.sequence for each in headers]


@given(PAYLOADS, st.data())
def test_a_cut_segment_loses_only_the_frame_at_its_end(payloads: list[tuple[bytes, int]], data: st.DataObject) -> None:
    whole, headers = segment(payloads)
    cut = data.draw(st.integers(0, len(whole)))
    found = list(walk(whole[:cut]))
    assert [each for each in found if isinstance(each, Header)] == [each for each in headers if each.end <= cut]
    assert all(each.cut for each in found if isinstance(each, Damage))


@given(st.binary(max_size=500))
def test_bytes_that_are_no_segment_contain_no_frame(data: bytes) -> None:
    assert not any(isinstance(each, Header) for each in walk(data))
    assert decode_header(data) is None


def test_magic_bytes_within_a_payload_are_not_taken_for_a_frame() -> None:
    data, headers = segment([(MAGIC * 40, 1), (MAGIC + bytes(HEADER_BYTES), 2), (b"", 3)])
    flipped = bytearray(data)
    flipped[0] ^= 1
    found = list(walk(bytes(flipped)))
    assert found == [Damage(0, headers[1].offset, 1, cut=False), *headers[1:]]
