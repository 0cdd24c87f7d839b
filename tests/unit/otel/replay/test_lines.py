"""Lines of a run's files that are sent, and those that are left out."""

from pathlib import Path

from nissa.otel.replay import replay
from nissa.otel.replay.lines import Skipped
from tests import otlp

SPAN = otlp.spans(otlp.span("s", 1, 2, {}, trace="t", own="o")).encode()
CUT = "it is cut off, as the last line of a killed process may be; it is left out"
OTHER = "it is no OTLP JSON of this signal; it is left out"


def write(folder: Path, content: bytes) -> Path:
    (folder / "traces.jsonl").write_bytes(content)
    return folder


def test_a_last_line_that_is_cut_off_is_left_out_and_the_rest_is_complete(tmp_path: Path) -> None:
    done = replay(write(tmp_path, SPAN + b"\n" + SPAN[:40]), dry_run=True)
    assert done.signals["traces"].found == 1
    assert done.skipped == (Skipped("traces.jsonl", 2, CUT, cut=True),)
    assert done.complete


def test_other_lines_that_are_no_request_are_left_out_in_their_order(tmp_path: Path) -> None:
    lines = [b"{", SPAN, b"", b'{"event_type": "X"}', b'"\xff"', b'{"resourceSpans": 1}', b"[]"]
    done = replay(write(tmp_path, b"\n".join(lines)), dry_run=True)
    assert done.signals["traces"].found == 1
    assert done.skipped == tuple(Skipped("traces.jsonl", line, OTHER, cut=False) for line in (1, 4, 5, 6, 7))
    assert not done.complete
