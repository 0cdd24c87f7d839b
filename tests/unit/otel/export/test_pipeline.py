"""The export thread: promptness, flush and end within their limits, and producers that interrupt each other."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic, sleep
from typing import Any

import pytest

from nissa.otel.export.pipeline import ExportPipeline
from tests.support import until


class Written:
    """Sink that keeps what it gets; ``answer`` is its outcome, None for a delivery that hangs."""

    size_bytes = 0

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics = 0
        self.counters: list[Any] = []
        self.answer: bool | None = True
        self.closed = False
        self.lates: list[float] = []
        self.fails = False
        self.losses: list[tuple[str, int, str]] = []

    @property
    def missing(self) -> int:
        return sum(items for _, items, _ in self.losses)

    def lost(self, signal: str, items: int, reason: str) -> None:
        self.losses.append((signal, items, reason))

    def write_spans(self, spans: list[Any]) -> None:
        if self.fails:
            raise RuntimeError("no room")
        self.spans += spans

    write_records = write_spans

    def write_metrics(self, data: Any) -> None:
        if data == "counters":
            self.counters.append([*self.spans])
        else:
            self.metrics += 1

    def deliver(self, **_: bool) -> float:
        return inf

    @property
    def outcome(self) -> bool | None:
        return self.answer

    def late(self, seconds: float) -> None:
        self.lates.append(seconds)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[ExportPipeline, Written]]]:
    made: list[ExportPipeline] = []

    def pipeline(interval: float = inf, exit_seconds: float = 5.0) -> tuple[ExportPipeline, Written]:
        sink = Written()
        made.append(
            ExportPipeline(
                lambda *_: sink,
                collect=lambda: Any,  # type: ignore[arg-type, return-value]  # no SDK needed
                collect_changed=lambda: "counters",  # type: ignore[arg-type, return-value]
                interval=interval,
                exit_seconds=exit_seconds,
            )
        )
        return made[-1], sink

    yield pipeline
    for each in made:
        each.close(0.1)


def test_a_span_is_written_without_a_flush(make: Any) -> None:
    pipeline, sink = make()
    began = monotonic()
    pipeline.add_span("a")
    until(lambda: sink.spans == ["a"], "the span")
    assert monotonic() - began < 5  # 0.1 s on an idle machine; the metrics of this pipeline are never due
    pipeline.add_record("b")
    until(lambda: sink.spans == ["a", "b"], "the record")


def test_the_counters_of_events_are_written_after_their_spans_and_never_without(make: Any) -> None:
    pipeline, sink = make()
    pipeline.add_span("a")
    until(lambda: len(sink.counters) == 1, "the counters")
    pipeline.add_span("a")
    until(lambda: len(sink.counters) == 2, "the counters")
    assert sink.counters == [["a"], ["a", "a"]]
    assert sink.metrics == 0
    pipeline.flush(5.0)
    pipeline.wake()
    assert pipeline.flush(5.0)
    assert (sink.metrics, len(sink.counters)) == (2, 2)  # a flush writes all metrics


def test_metrics_are_written_at_each_interval(make: Any) -> None:
    _, sink = make(interval=0.02)
    until(lambda: sink.metrics >= 3, "three collections")


def test_a_flush_writes_everything_and_metrics_once(make: Any) -> None:
    pipeline, sink = make()
    for number in range(1_000):
        pipeline.add_span(number)
    assert pipeline.flush(5.0)
    assert sink.spans == list(range(1_000))
    assert sink.metrics == 1


def test_a_flush_reports_what_is_not_delivered_and_one_that_is_late(make: Any) -> None:
    pipeline, sink = make()
    sink.answer = False
    assert not pipeline.flush(5.0)
    assert sink.lates == []
    sink.answer = None
    assert not pipeline.flush(0.05)
    assert sink.lates == [0.05]


def test_the_end_is_bounded_and_the_sink_is_closed_where_a_delivery_hangs(make: Any) -> None:
    pipeline, sink = make()
    sink.answer = None
    pipeline.add_span("a")
    assert not pipeline.close(0.1)
    assert sink.spans == ["a"]
    until(lambda: sink.closed and not pipeline.thread.is_alive(), "the end of the thread")
    assert pipeline.flush(5.0)  # nothing is left that could be flushed


def test_a_sink_that_fails_ends_neither_the_thread_nor_a_flush(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline, sink = make()
    sink.fails = True
    pipeline.add_span("lost")
    assert not pipeline.flush(5.0)
    sink.fails = False
    pipeline.add_span("a")
    assert pipeline.flush(5.0)
    assert sink.spans == ["a"]
    assert sink.losses == [("traces", 1, "they could not be written: no room")]
    assert "could not be exported" in caplog.text


def test_what_the_queue_has_no_room_for_is_counted(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nissa.otel.export.pipeline._QUEUE_SIZE", 100)
    pipeline, sink = make()
    writing, go_on = threading.Event(), threading.Event()

    def hang(spans: list[Any]) -> None:
        sink.spans += spans
        writing.set()
        assert go_on.wait(10)

    sink.write_spans = hang
    pipeline.add_span("first")
    assert writing.wait(10)
    for number in range(130):
        pipeline.add_span(number)
    go_on.set()
    assert not pipeline.flush(5.0)  # says once that something is missing
    assert pipeline.flush(5.0)
    assert sink.spans == ["first", *range(30, 130)]
    assert [(signal, items) for signal, items, _ in sink.losses] == [("traces", 30)]


def test_signal_handlers_may_add_and_flush_at_any_moment(make: Any) -> None:
    pipeline, sink = make()
    handled = 0
    flushing = False

    def handler(*_: object) -> None:
        nonlocal handled, flushing
        handled += 1
        pipeline.add_span("signal")
        if handled % 50 == 0 and not flushing:  # on a busy machine, endless signals would interrupt one another
            flushing = True
            assert pipeline.flush(10.0)
            flushing = False

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        added = 0
        deadline = monotonic() + 1
        while monotonic() < deadline:
            pipeline.add_span("loop")
            added += 1
            if added % 1_000 == 0:
                assert pipeline.flush(10.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pipeline.flush(10.0)
    assert handled > 0
    assert (sink.spans.count("loop"), sink.spans.count("signal")) == (added, handled)


def test_many_threads_lose_nothing_and_keep_their_order(make: Any) -> None:
    pipeline, sink = make()

    def produce(name: int) -> None:
        for number in range(500):
            pipeline.add_span((name, number))
            if number % 100 == 0:
                sleep(0.001)

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipeline.flush(10.0)
    for name in range(8):
        assert [number for of, number in sink.spans if of == name] == list(range(500))


def test_an_export_pauses_after_work_unless_somebody_waits_for_it(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("nissa.otel.export.pipeline.sleep", paused.append)
    pipeline, sink = make(interval=1.0)

    def work(_: Any) -> None:
        for _ in range(100):
            end = monotonic() + 0.001
            while monotonic() < end:
                pass
            pipeline._pauses()
        sink.metrics += 1

    sink.write_metrics = work
    until(lambda: sink.metrics, "an export")
    assert len(paused) == 40
    pipeline._interval = pipeline._next_metrics = inf
    until(lambda: pipeline._idle, "the end of the export")
    paused.clear()
    assert pipeline.flush(10)
    assert paused == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_exports_through_a_sink_of_its_own(make: Any) -> None:
    pipeline, sink = make()
    pipeline.add_span("of the parent, not yet written")
    child = os.fork()
    if child == 0:
        try:
            assert pipeline.flush(5.0)  # there is nothing to do before the first span
            pipeline.add_span("of the child")
            delivered = pipeline.flush(5.0) and sink.spans[-1] == "of the child"
            assert pipeline.close(5.0)
            os._exit(0 if delivered else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pipeline.flush(5.0)
    assert sink.spans == ["of the parent, not yet written"]
