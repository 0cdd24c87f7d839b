"""The sink: delivery behind a cursor, refusals, a full disk, and what is left for a later start."""

import gzip
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nissa.errors import JournalError
from nissa.journal import Spool
from nissa.otel.export.export_log import ExportLog
from nissa.otel.export.leftovers import JournalWithLeftovers
from nissa.otel.export.memory_journal import MemoryJournal
from nissa.otel.export.spool_sink import SpoolSink
from nissa.otel.otlp.outcome import Outcome, SendResult
from tests.unit.otel.export.test_encoding import spans

DESTINATIONS: Any = {"traces": "http://collector:4318 (http/protobuf)"}
DELIVERED, DOWN = SendResult(Outcome.DELIVERED, ""), SendResult(Outcome.RETRY, "connection refused")


class Collector:
    """Client with scripted answers; the last one is repeated."""

    def __init__(self, *answers: SendResult) -> None:
        self.answers = list(answers) or [DELIVERED]
        self.got: list[str] = []
        self.requests = self.largest = 0

    def send(self, payload: bytes, *, gzipped: bool = True) -> SendResult:
        self.requests += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.outcome is Outcome.DELIVERED:
            content = gzip.decompress(payload) if gzipped else payload
            self.largest = max(self.largest, len(content))
            message = ExportTraceServiceRequest.FromString(content)
            self.got += [span.name for each in message.resource_spans for span in each.scope_spans[0].spans]
        return answer

    def close(self) -> None:
        pass


def settled(sink: SpoolSink, *, now: bool = True) -> bool:
    """Deliver until the outcome is known, and return it."""
    deadline = monotonic() + 5
    sink.deliver(now=now)
    while (outcome := sink.outcome) is None:
        assert monotonic() < deadline
        sleep(0.001)
        sink.deliver()
    return outcome


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[SpoolSink, ExportLog]]]:
    made: list[SpoolSink] = []

    def sink(collector: Collector, journal: Any = None) -> tuple[SpoolSink, ExportLog]:
        log = ExportLog(DESTINATIONS, "the spool")
        journal = journal or Spool.create(tmp_path / "run" / "spool", DESTINATIONS)
        made.append(SpoolSink(journal, {"traces": collector}, wake=lambda: None, log=log))
        return made[-1], log

    yield sink
    for each in made:
        with suppress(JournalError):
            each.close()


def test_what_is_written_is_delivered_in_order_and_counted(make: Any) -> None:
    collector = Collector()
    sink, log = make(collector)
    for name in "abc":
        sink.write_spans(spans(name))
    assert settled(sink)
    assert collector.got == ["a", "b", "c"]
    assert log.counts == {("traces", "delivered"): 3}
    assert log.healthy


def test_nothing_is_lost_while_the_collector_is_down_and_it_is_logged_twice(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector = Collector(DOWN, DOWN, DELIVERED)
    sink, log = make(collector)
    sink.write_spans(spans("a", "b"))
    assert not settled(sink)
    assert not settled(sink)
    assert sink.waiting == {"traces": 2}
    assert settled(sink)
    assert collector.got == ["a", "b"]
    messages = [record.getMessage() for record in caplog.records if record.name == "nissa"]
    assert [message.partition(" at ")[0] for message in messages] == [
        "Telemetry does not reach the collector",
        "The collector",
    ]
    assert log.healthy


def test_attempts_are_spaced_and_a_pause_that_the_collector_asks_for_is_kept(make: Any) -> None:
    collector = Collector(SendResult(Outcome.RETRY, "busy", retry_after=30.0))
    sink, _ = make(collector)
    sink.write_spans(spans("a"))
    assert not settled(sink)
    assert 25 < sink.deliver() <= 30


def test_a_pause_of_years_does_not_end_the_delivery(make: Any) -> None:
    sink, _ = make(Collector(SendResult(Outcome.RETRY, "busy", retry_after=1e9)))
    sink.write_spans(spans("a"))
    assert not settled(sink)
    assert 290 < sink.deliver() <= 300


def test_what_an_endpoint_refuses_because_of_a_credential_is_kept_and_delivered_when_it_is_accepted(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector(SendResult(Outcome.REFUSED, "401 Unauthorized", endpoint_fault=True), DELIVERED)
    sink, log = make(collector)
    sink.write_spans(spans("a"))
    assert not settled(sink)
    assert 25 < sink.deliver() <= 30
    assert sink.waiting == {"traces": 1}
    assert settled(sink)
    assert collector.got == ["a"]
    assert log.healthy
    refusal, recovery = [record.getMessage() for record in caplog.records if record.name == "nissa"]
    assert "refuses spans (401 Unauthorized)" in refusal
    assert "OTEL_TRACES_EXPORTER=none" in refusal
    assert "answers again" in recovery


@pytest.mark.parametrize("memory", [False, True], ids=["spool", "memory"])
def test_what_waits_is_sent_together_in_order(make: Any, memory: bool) -> None:
    collector = Collector(DOWN, DELIVERED)
    sink, log = make(collector, MemoryJournal() if memory else None)
    sink.write_spans(spans("0"))
    assert not settled(sink)
    for number in range(1, 50):
        sink.write_spans(spans(str(number)))
    assert settled(sink)
    assert collector.got == [str(number) for number in range(50)]
    assert collector.requests == 2
    assert log.counts == {("traces", "delivered"): 50}


def test_a_request_of_several_frames_is_bounded(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nissa.otel.export.spool_sink.BATCH_BYTES", 2_000)
    collector = Collector(DOWN, DELIVERED)
    sink, _ = make(collector)
    sink.write_spans(spans("0"))
    assert not settled(sink)
    for number in range(1, 40):
        sink.write_spans(spans(str(number)))
    assert settled(sink)
    assert collector.got == [str(number) for number in range(40)]
    assert 4 < collector.requests < 20
    assert collector.largest <= 2_000


def test_of_frames_that_are_refused_together_each_is_judged_by_itself(make: Any) -> None:
    class Choosy(Collector):
        def send(self, payload: bytes, *, gzipped: bool = True) -> SendResult:
            if b"bad-" in (gzip.decompress(payload) if gzipped else payload):
                self.answers = [SendResult(Outcome.REFUSED, "400 bad")]
            else:
                self.answers = [DELIVERED]
            return super().send(payload, gzipped=gzipped)

    collector = Choosy()
    sink, log = make(collector)
    for name in ("a", "bad-1", "b", "bad-2", "c"):
        sink.write_spans(spans(name))
    assert settled(sink)
    assert collector.got == ["a", "b", "c"]
    assert log.counts == {("traces", "delivered"): 3, ("traces", "refused"): 2}
    for name in "de":
        sink.write_spans(spans(name))
    before = collector.requests
    assert settled(sink)
    assert collector.requests == before + 1  # together again


def test_a_payload_that_is_no_request_loses_only_itself(make: Any, tmp_path: Path) -> None:
    journal = Spool.create(tmp_path / "run" / "spool", DESTINATIONS)
    collector = Collector()
    sink, log = make(collector, journal)
    journal.append("traces", b"not gzip at all", 3, time_unix_nano=1, kind="lifecycle")
    sink.write_spans(spans("a"))
    collector.answers = [SendResult(Outcome.REFUSED, "the payload is not a request"), DELIVERED]
    assert settled(sink)
    assert collector.got == ["a"]
    assert log.counts == {("traces", "delivered"): 1, ("traces", "refused"): 3}


def test_a_refused_request_is_counted_and_does_not_block_others(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    refused = SendResult(Outcome.REFUSED, "400 bad")
    collector = Collector(refused, refused, DELIVERED)  # both together, then each by itself
    sink, log = make(collector)
    sink.write_spans(spans("refused"))
    sink.write_spans(spans("b"))
    assert settled(sink)
    assert collector.got == ["b"]
    assert log.counts == {("traces", "refused"): 1, ("traces", "delivered"): 1}
    assert not log.healthy
    assert "400 bad" in caplog.text


def test_partly_rejected_items_are_counted(make: Any) -> None:
    sink, log = make(Collector(SendResult(Outcome.DELIVERED, "too old", rejected=1)))
    sink.write_spans(spans("a", "b", "c"))
    assert settled(sink)
    assert log.counts == {("traces", "delivered"): 2, ("traces", "refused"): 1}


def test_a_removed_folder_is_logged_once_and_what_comes_later_arrives(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    sink, log = make(collector)
    for path in (tmp_path / "run" / "spool").iterdir():
        path.unlink()
    (tmp_path / "run" / "spool").rmdir()
    sink.write_spans(spans("a"))
    assert sink.waiting == {"traces": 1}
    assert not log.healthy
    assert settled(sink)
    assert collector.got == ["a"]
    assert log.healthy
    assert caplog.text.count("Telemetry cannot be written") == 1


def test_what_a_dead_process_left_is_delivered_after_what_is_new(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, _ = make(Collector(DOWN), Spool.create(tmp_path / "earlier" / "spool", DESTINATIONS))
    first.write_spans(spans("old"))
    assert not settled(first)
    first.close()
    other = Spool.create(tmp_path / "elsewhere" / "spool", {"traces": "http://other (grpc)"})
    other.append("traces", b"x", 1, time_unix_nano=1)
    other.close()
    collector = Collector()
    own = Spool.create(tmp_path / "run" / "spool", DESTINATIONS)
    sink, _ = make(collector, JournalWithLeftovers(own, tmp_path, DESTINATIONS))
    sink.write_spans(spans("new"))
    assert settled(sink)
    deadline = monotonic() + 5
    while "old" not in collector.got and monotonic() < deadline:
        sink.deliver()
        sleep(0.001)
    sink.deliver()
    sleep(0.01)
    sink.deliver()
    assert collector.got == ["new", "old"]
    assert not (tmp_path / "earlier" / "spool").exists()
    assert (tmp_path / "elsewhere" / "spool").exists()
    assert "Delivered what an earlier run had left" in caplog.text


def test_a_journal_in_memory_gives_way_to_new_items_and_counts_the_loss(make: Any) -> None:
    collector = Collector(DOWN)
    sink, log = make(collector, MemoryJournal(limit_bytes=600))
    for number in range(5):
        sink.write_spans(spans(str(number)))
    assert not settled(sink)
    kept = sink.waiting["traces"]
    assert 0 < kept < 5
    assert log.counts == {("traces", "lost"): 5 - kept}


@pytest.mark.parametrize(
    "damaged",
    [gzip.compress(bytes(10_000))[:-9], b"not gzip", gzip.compress(bytes(65 << 20))],
    ids=["cut", "other", "bomb"],
)
def test_payloads_that_cannot_be_joined_are_refused_together_and_judged_one_by_one(make: Any, damaged: bytes) -> None:
    journal = MemoryJournal()
    collector = Collector()
    collector.answers = [SendResult(Outcome.REFUSED, "no request"), DELIVERED]
    sink, log = make(collector, journal)
    journal.append("traces", damaged[:-4] + b"\1\0\0\0", 3, time_unix_nano=1, kind="lifecycle")
    sink.write_spans(spans("a"))
    assert settled(sink)
    assert collector.got == ["a"]
    assert log.counts == {("traces", "delivered"): 1, ("traces", "refused"): 3}
