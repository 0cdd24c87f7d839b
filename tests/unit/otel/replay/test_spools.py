"""Spools and compressed files are sent like files of JSON lines; frames are sent exactly as they are stored."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nissa.journal import FileJournal, Signal, Spool
from nissa.otel.replay import replay
from nissa.otel.replay.requests import message
from tests import otlp
from tests.receivers import Response, http_receiver

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")


def request(signal: Signal, number: int) -> Any:
    """Return a request with two spans, points or log records."""
    if signal == "traces":
        spans = (otlp.span(f"s{number}", 1, 2, {}, trace="0a" * 16, own=f"{each:016x}") for each in (1, 2))
        return json.loads(otlp.spans(*spans))
    if signal == "metrics":
        return json.loads(otlp.metrics(otlp.gauge("g", [(number, 1.5), (number + 1, 2.5)])))
    return json.loads(otlp.logs(otlp.record(f"e{number}", 1), otlp.record("f", 2)))


def stored(signal: Signal, number: int) -> bytes:
    return gzip.compress(message(signal, request(signal, number)).SerializeToString(), mtime=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a run with frames in a spool, some of them delivered."""
    spool = Spool.create(tmp_path / "run" / "spool", {}, limit_bytes=2**20, keep=True)
    for number in range(3):
        for signal in SIGNALS:
            spool.append(signal, stored(signal, number), 2, time_unix_nano=number + 1, kind="lifecycle")
    delivered = spool.peek("traces")
    assert delivered is not None
    spool.advance(delivered)
    spool.close()
    return tmp_path / "run"


def test_frames_are_sent_as_they_are_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    assert {name: each.found for name, each in replay(folder, dry_run=True).signals.items()} == dict.fromkeys(
        SIGNALS, 6
    )
    with http_receiver() as receiver:
        done = replay(folder, endpoint=receiver.url, protocol="http/protobuf")
    assert done.complete
    assert {name: (each.files, each.found, each.sent) for name, each in done.signals.items()} == dict.fromkeys(
        SIGNALS, (1, 6, 6)
    )
    assert [(each.path, each.body) for each in receiver.got] == [
        (f"/v1/{signal}", stored(signal, number)) for signal in SIGNALS for number in range(3)
    ]


def test_frames_that_are_refused_are_counted(folder: Path) -> None:
    with http_receiver(Response(400), Response()) as receiver:
        done = replay(folder, endpoint=receiver.url, protocol="http/protobuf")
    assert {name: each.sent for name, each in done.signals.items()} == {"traces": 4, "metrics": 6, "logs": 6}
    assert done.signals["traces"].reasons == ["400 Bad Request"]


def test_a_damaged_frame_costs_only_itself(folder: Path) -> None:
    (segment,) = (folder / "spool").glob("metrics-*.spool")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    with http_receiver() as receiver:
        done = replay(folder, endpoint=receiver.url, protocol="http/protobuf")
    assert {name: each.sent for name, each in done.signals.items()} == {"traces": 6, "metrics": 4, "logs": 6}
    (skipped,) = done.skipped
    assert str(skipped).startswith(f"spool/{segment.name}: it is damaged at byte ")
    assert not done.complete


def test_a_run_in_progress_is_sent_as_far_as_it_is_written(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool-rank1", {}, limit_bytes=2**20)
    spool.append("logs", stored("logs", 1), 2, time_unix_nano=1, kind="lifecycle")
    with http_receiver() as receiver:
        done = replay(tmp_path, endpoint=receiver.url, protocol="http/json")
    assert done.complete
    (got,) = receiver.got
    assert json.loads(got.body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["eventName"] == "e1"
    assert spool.waiting("logs") == 2, "the run itself sends it too"
    spool.close()


def test_closed_files_are_sent_before_the_open_one(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, segment_bytes=500)
    for number in range(6):
        journal.append("logs", json.dumps(request("logs", number)).encode(), 2)
    journal.close()
    assert list(tmp_path.glob("*.gz"))
    with http_receiver() as receiver:
        done = replay(tmp_path, endpoint=receiver.url, protocol="http/json")
    assert (done.complete, done.signals["logs"].sent) == (True, 12)
    resources = [each for got in receiver.got for each in json.loads(got.body)["resourceLogs"]]
    names = [each["scopeLogs"][0]["logRecords"][0]["eventName"] for each in resources]
    assert names == [f"e{number}" for number in range(6)]
