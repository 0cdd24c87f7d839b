"""OTLP JSON lines in a folder."""

from pathlib import Path

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource

from nissa.errors import ConfigurationError
from nissa.otel.export import files
from tests.support import lines

HOUR = 3600.0
YEAR = 365 * 86_400_000.0


@pytest.fixture
def built(tmp_path: Path) -> files.FileProviders:
    return files.build(tmp_path / "a" / "b", "", Resource.create({"service.name": "digits"}), HOUR)


def test_a_span_is_on_disk_when_it_has_ended(built: files.FileProviders, tmp_path: Path) -> None:
    built.tracer.get_tracer("nissa").start_span("hello").end()
    (line,) = lines(tmp_path / "a" / "b" / "traces.jsonl")
    (span,) = line["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["name"] == "hello"
    assert len(span["traceId"]) == 32
    service = {"key": "service.name", "value": {"stringValue": "digits"}}
    assert service in line["resourceSpans"][0]["resource"]["attributes"]


def test_an_event_is_on_disk_when_it_was_told(built: files.FileProviders, tmp_path: Path) -> None:
    built.logger.get_logger("nissa").emit(event_name="hello", body="x", severity_number=SeverityNumber.INFO)
    (line,) = lines(tmp_path / "a" / "b" / "logs.jsonl")
    assert line["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["eventName"] == "hello"


def test_metrics_are_written_at_flush_and_at_the_end(built: files.FileProviders, tmp_path: Path) -> None:
    built.meter.get_meter("app").create_counter("requests").add(1)
    built.meter.force_flush()
    assert len(lines(tmp_path / "a" / "b" / "metrics.jsonl")) == 1
    built.meter.shutdown()
    assert len(lines(tmp_path / "a" / "b" / "metrics.jsonl")) == 2


def test_a_later_run_of_the_same_name_appends(built: files.FileProviders, tmp_path: Path) -> None:
    built.tracer.get_tracer("nissa").start_span("first").end()
    again = files.build(tmp_path / "a" / "b", "", Resource.create({}), HOUR)
    again.tracer.get_tracer("nissa").start_span("second").end()
    assert len(lines(tmp_path / "a" / "b" / "traces.jsonl")) == 2


@pytest.mark.parametrize(
    ("wanted", "millis"), [(None, 15_000.0), ("", 15_000.0), ("250", 250.0), ("0", YEAR), ("-1", YEAR)]
)
def test_the_environment_says_how_often_metrics_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str | None, millis: float
) -> None:
    if wanted is not None:
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", wanted)
    built = files.build(tmp_path, "", Resource.create({}), 15.0)
    (reader,) = built.meter._metric_readers
    assert reader._export_interval_millis == millis  # type: ignore[attr-defined]
    built.meter.shutdown()


def test_metrics_that_are_not_written_in_between_are_written_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "0")
    built = files.build(tmp_path, "", Resource.create({}), 15.0)
    built.meter.get_meter("app").create_counter("requests").add(1)
    built.meter.shutdown()
    assert len(lines(tmp_path / "metrics.jsonl")) == 1


def test_an_interval_that_is_no_number_fails_at_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "15s")
    with pytest.raises(ConfigurationError, match="milliseconds"):
        files.build(tmp_path, "", Resource.create({}), 15.0)
