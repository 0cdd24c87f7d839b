"""Runs that are recorded in a spool, in compressed files, or in several of these."""

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from nissa.errors import ConfigurationError
from nissa.journal import FileJournal, Signal, Spool
from nissa.otel.replay.requests import message
from nissa.recordings import Recording, find_run, read
from nissa.report import write_report
from tests import otlp
from tests.recorded import Recorded

RUN = Recorded(envs=("0",), steps=30, parameters=2)
HEX = {"trace": "0af7651916cd43dd8448eb211c80319c", "own": "b7ad6b7169203331", "parent": "00f067aa0ba902b7"}
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")


def with_hexadecimal_ids(line: str) -> Any:
    """Return a request with ids of the size that protobuf's users expect: those of `tests.recorded` are words."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(each) for each in node]
        if not isinstance(node, dict):
            return node
        sizes = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
        return {
            key: value.encode().hex()[: sizes[key]].ljust(sizes[key], "0") if key in sizes and value else walk(value)
            for key, value in node.items()
        }

    return walk(json.loads(line))


def requests(folder: Path) -> dict[Signal, list[Any]]:
    """Return the requests of a recorded run by signal."""
    lines = {signal: (RUN.write(folder) / f"{signal}.jsonl").read_text().splitlines() for signal in SIGNALS}
    return {signal: [with_hexadecimal_ids(line) for line in lines[signal]] for signal in SIGNALS}


def spooled(folder: Path, given: Mapping[Signal, list[Any]], *, finished: bool = True) -> Spool:
    spool = Spool.create(folder, {}, segment_bytes=3_000, keep=True)
    for signal, each in given.items():
        for number, request in enumerate(each):
            payload = gzip.compress(message(signal, request).SerializeToString())
            kind = "bulk" if signal == "metrics" else "lifecycle"
            spool.append(signal, payload, 1, time_unix_nano=number + 1, kind=kind)  # type: ignore[arg-type]
    if finished:
        spool.close()
    return spool


def filed(folder: Path, given: Mapping[Signal, list[Any]]) -> None:
    journal = FileJournal.create(folder, segment_bytes=2_000)
    for signal, each in given.items():
        for request in each:
            journal.append(signal, json.dumps(request).encode(), 1)
    journal.close()


def content(found: Recording) -> Any:
    """Return what a recording contains, without the names of files."""
    streams = {
        (stream.metric, json.dumps(stream.attributes, sort_keys=True)): (stream.times.tolist(), stream.values.tolist())
        for stream in found.streams
    }
    distributions = {
        (stream.metric, json.dumps(stream.attributes, sort_keys=True), stream.cumulative): [
            (point.start, point.time, point.scale, point.offset, point.counts.tolist(), point.zeros)
            for point in stream.points
        ]
        for stream in found.distributions
    }
    return repr((found.spans, sorted(streams.items()), sorted(distributions.items()), found.logs, found.point_count))


def test_a_spool_a_compressed_file_and_a_plain_one_are_the_same_recording(tmp_path: Path) -> None:
    given = requests(tmp_path / "words")
    lines = {signal: map(json.dumps, each) for signal, each in given.items()}
    expected = read(otlp.write(tmp_path / "plain", **lines))
    spooled(tmp_path / "spooled" / "spool-rank0", given)
    filed(tmp_path / "filed", given)
    assert expected.spans
    assert expected.logs
    assert expected.point_count >= RUN.points
    for name in ("spooled", "filed"):
        found = read(tmp_path / name)
        assert content(found) == content(expected)
        assert found.damaged == ()
    assert [*read(tmp_path / "spooled").files] == ["spool-rank0"]
    assert "metrics.000001.jsonl.gz" in read(tmp_path / "filed").files


def test_a_run_that_is_still_written_is_read(tmp_path: Path) -> None:
    given = requests(tmp_path / "words")
    spool = spooled(tmp_path / "run" / "spool", given, finished=False)
    spans = len(read(tmp_path / "run").spans)
    head = spool.peek("traces")
    assert head is not None
    spool.advance(head)
    assert len(read(tmp_path / "run").spans) == spans  # delivered frames are read too, as long as they are there
    journal = FileJournal.create(tmp_path / "run")
    journal.append("traces", otlp.spans(otlp.span("more", 1, 2, {}, **HEX)).encode(), 1)
    found = read(tmp_path / "run")
    assert len(found.spans) == spans + 1
    assert found.files == ("logs.jsonl", "metrics.jsonl", "traces.jsonl", "spool")
    assert write_report(tmp_path / "run").spans == spans + 1
    journal.close()
    spool.close()


def test_a_span_in_a_spool_and_in_a_file_counts_once(tmp_path: Path) -> None:
    request = json.loads(otlp.spans(otlp.span("s", 1, 2, {"n": 3}, **HEX, links=[{"traceId": HEX["trace"]}])))
    spooled(tmp_path / "spool", {"traces": [request]})
    otlp.write(tmp_path, traces=[json.dumps(request)])
    (span,) = read(tmp_path).spans
    assert (span.trace_id, span.span_id, span.parent_id) == tuple(HEX.values())


def test_values_of_all_kinds_are_read_from_a_spool(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"text": "é", "whole": 2**53 + 1, "real": 0.5, "flag": True, "list": ["a", 1]}
    failed = otlp.span("s", 1, 2, attributes, **HEX, status={"code": 2, "message": "broken"})
    points = otlp.gauge("g", [(1, "NaN"), (2, "-Infinity"), (3, 0.1)], attributes)
    count = {"name": "c", "sum": {"dataPoints": [{"timeUnixNano": "4", "asInt": "7"}]}}
    bounds = {"explicitBounds": [1.0], "bucketCounts": ["1", "2"], "count": "3", "timeUnixNano": "5"}
    delta = otlp.exponential("d", [(9, 2, -3, [1, 0, 2])], temporality=1)
    histogram = {"name": "h", "histogram": {"dataPoints": [bounds]}}
    given: dict[Signal, list[Any]] = {
        "traces": [json.loads(otlp.spans(failed))],
        "metrics": [json.loads(otlp.metrics(points, count, delta, histogram))],
        "logs": [json.loads(otlp.logs(otlp.record("e", 7, attributes, body="said", severity=13, trace=HEX["trace"])))],
    }
    spooled(tmp_path / "spool", given)
    found = read(tmp_path)
    (span,), (record,) = found.spans, found.logs
    assert (span.attributes, span.error) == (attributes, "broken")
    assert (record.attributes, record.body, record.severity, record.trace_id) == (
        attributes, "said", 13, HEX["trace"],
    )  # fmt: skip
    (gauge,), (total,), (one,) = found.of("g"), found.of("c"), found.distributions_of("d")
    assert repr(gauge.values.tolist()) == "[nan, -inf, 0.1]"
    assert gauge.attributes == attributes
    assert (total.times.tolist(), total.values.tolist()) == ([4], [7.0])
    assert (one.cumulative, one.points[0].counts.tolist(), found.point_count) == (False, [1, 0, 2], 6)


def test_damaged_frames_are_listed_and_the_others_are_read(tmp_path: Path) -> None:
    request = json.loads(otlp.spans(otlp.span("s", 1, 2, {}, **HEX)))
    good = gzip.compress(message("traces", request).SerializeToString())
    spool = Spool.create(tmp_path / "spool", {})
    for payload in (b"no gzip", gzip.compress(b"\xff\xff no request"), good[:-9], good):
        spool.append("traces", payload, 1, time_unix_nano=1)
    spool.close()
    (path,) = (tmp_path / "spool").glob("*.spool")
    path.write_bytes(path.read_bytes() + b"torn")
    found = read(tmp_path)
    assert len(found.spans) == 1
    name, starts = f"spool/{path.name}", [1]
    for length in (7, len(gzip.compress(b"\xff\xff no request")), len(good) - 9, len(good)):
        starts.append(starts[-1] + 42 + length)
    assert found.damaged == tuple(f"{name}:{start}" for start in (*starts[:3], starts[4]))


def test_a_compressed_file_that_is_damaged_is_listed_with_the_last_good_line(tmp_path: Path) -> None:
    lines = [otlp.spans(otlp.span("s", 1, 2, {}, trace="t", own=f"{number}")) for number in range(400)]
    packed = gzip.compress("\n".join(lines).encode(), mtime=0)
    (tmp_path / "traces.000001.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    found = read(tmp_path)
    assert 0 < len(found.spans) < 400
    assert [each.split(" (")[0] for each in found.damaged] == ["traces.000001.jsonl.gz"]
    assert f"after line {len(found.spans)}" in found.damaged[0]


@pytest.mark.parametrize("kind", ["gz", "spool"])
def test_a_folder_of_runs_means_the_one_that_wrote_last_in_any_mode(tmp_path: Path, kind: str) -> None:
    os.utime(otlp.write(tmp_path / "old", traces=["{}"]) / "traces.jsonl", (100, 100))
    if kind == "spool":
        spool = Spool.create(tmp_path / "new" / "spool", {})
        spool.append("traces", b"", 1, time_unix_nano=1)
        spool.close()
    else:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "traces.000001.jsonl.gz").write_bytes(b"")
    assert find_run(tmp_path) == find_run(tmp_path / "new") == tmp_path / "new"


def test_an_empty_spool_is_no_telemetry(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool", {}, keep=True)
    with pytest.raises(ConfigurationError, match="nissa-runs/<run id>"):
        read(tmp_path)
    spool.close()


def test_the_request_of_a_frame_is_what_protobuf_itself_says(tmp_path: Path) -> None:
    from nissa.journal import frames  # noqa: PLC0415
    from nissa.recordings.spool_reader import decoded  # noqa: PLC0415

    given = requests(tmp_path / "words")
    spooled(tmp_path / "spool", {"metrics": given["metrics"]})
    for frame, request in zip(frames(tmp_path / "spool"), given["metrics"], strict=True):
        assert MessageToDict(message("metrics", decoded(frame))) == MessageToDict(message("metrics", request))


def test_entries_that_are_no_segments_hide_nothing_and_are_not_waited_for(tmp_path: Path) -> None:
    request = json.loads(otlp.spans(otlp.span("s", 1, 2, {}, **HEX)))
    spooled(tmp_path / "spool", {"traces": [request]})
    os.mkfifo(tmp_path / "spool" / "traces-bulk-000007.spool")
    (tmp_path / "spool" / "logs-bulk-000001.spool").mkdir()
    (tmp_path / "spool" / "logs-bulk-000002.spool").symlink_to("/dev/zero")
    with (tmp_path / "spool" / "metrics-bulk-000001.spool").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "spool-file").write_text("")
    (tmp_path / "spool-link").symlink_to(tmp_path / "spool")
    found = read(tmp_path)
    assert (len(found.spans), len(found.damaged), found.files) == (1, 4, ("spool",))
    assert all("it cannot be read: " in each for each in found.damaged)
