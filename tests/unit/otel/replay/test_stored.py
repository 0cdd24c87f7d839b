"""Replay of spools and of compressed files."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nissa.cli.app import app
from nissa.errors import ConfigurationError
from nissa.journal import FileJournal, Signal, Spool
from nissa.otel.otlp.settings import OtlpSettings
from nissa.otel.replay import replay
from nissa.otel.replay.requests import message
from tests import otlp
from tests.receivers import http_receiver

SPANS = [otlp.spans(otlp.span(f"s{number}", 1, 2, {}, trace="0a" * 16, own=f"{number:016x}")) for number in range(5)]
PAYLOADS = [gzip.compress(message("traces", json.loads(line)).SerializeToString(), mtime=0) for line in SPANS]


def spooled(folder: Path, destinations: dict[Signal, str], payloads: list[bytes] = PAYLOADS) -> Spool:
    spool = Spool.create(folder / "spool", destinations, segment_bytes=400)
    for payload in payloads:
        spool.append("traces", payload, 1, time_unix_nano=1, kind="lifecycle")
    return spool


def test_frames_are_sent_as_they_are_stored_and_not_again_by_a_later_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        spooled(tmp_path, {"traces": OtlpSettings.from_environment("traces").destination}).close()
        done = replay(tmp_path)
    traces = done.signals["traces"]
    assert (traces.found, traces.sent, done.complete, done.skipped) == (5, 5, True, ())
    assert traces.files == len([*(tmp_path / "spool").glob("*.spool")]) > 1
    assert [each.body for each in receiver.got] == PAYLOADS
    later = Spool.take_over(tmp_path / "spool")
    assert later is not None
    assert later.waiting("traces") == 0
    later.close()


def test_frames_that_went_elsewhere_or_did_not_arrive_stay_to_be_delivered(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        spooled(tmp_path, {"traces": f"{receiver.url}/other"}).close()
        assert replay(tmp_path, endpoint=receiver.url, protocol="http/protobuf").complete
    assert not replay(tmp_path, endpoint=receiver.url, protocol="http/protobuf", patience=0).complete
    later = Spool.take_over(tmp_path / "spool")
    assert later is not None
    assert later.waiting("traces") == 5
    later.close()


def test_the_spool_of_a_living_process_is_sent_and_stays_its_own(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        settings = OtlpSettings.from_environment("traces", {}, endpoint=receiver.url, protocol="http/protobuf")
        spool = spooled(tmp_path, {"traces": settings.destination})
        assert replay(tmp_path, endpoint=receiver.url, protocol="http/protobuf").signals["traces"].sent == 5
    assert spool.waiting("traces") == 5
    spool.close()


def test_damaged_frames_are_left_out_and_reported(tmp_path: Path) -> None:
    spooled(tmp_path, {}, [PAYLOADS[0]]).close()
    (path,) = (tmp_path / "spool").glob("*.spool")
    path.write_bytes(b"x" * 7 + path.read_bytes() + b"torn")
    done = CliRunner().invoke(app, ["replay", str(tmp_path), "--dry-run"])
    assert "1 spans would be sent" in done.output
    assert f"spool/{path.name}, byte 1: it is damaged" in done.output
    assert f"spool/{path.name}, byte {7 + 42 + len(PAYLOADS[0]) + 1}: it is cut off" in done.output
    assert done.exit_code == 1


def test_a_frame_that_is_no_request_costs_only_itself(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1 << 29), 9)
    spooled(tmp_path, {}, [b"no gzip", PAYLOADS[0][:-4], bomb, PAYLOADS[1]]).close()
    with http_receiver() as receiver:
        done = replay(tmp_path, endpoint=receiver.url, protocol="http/protobuf")
    assert (done.signals["traces"].found, done.signals["traces"].sent, done.complete) == (4, 1, False)
    assert any("it is no OTLP: it is incomplete or too large" in each for each in done.signals["traces"].reasons)


def test_closed_files_are_sent_before_the_open_one(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, segment_bytes=500)
    for line in SPANS:
        journal.append("traces", line.encode(), 1)
    journal.close()
    assert [*tmp_path.glob("*.gz")]
    with http_receiver() as receiver:
        done = replay(tmp_path, endpoint=receiver.url, protocol="http/json")
    assert done.complete
    (request,) = receiver.got
    names = [
        span["name"]
        for resource in json.loads(request.body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert names == [f"s{number}" for number in range(5)]


def test_a_folder_of_runs_with_spools_is_named(tmp_path: Path) -> None:
    spooled(tmp_path / "run-1", {}).close()
    with pytest.raises(ConfigurationError, match=r"folders of 1 runs: give one of them, such as .*run-1"):
        replay(tmp_path, dry_run=True)
