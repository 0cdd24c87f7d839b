"""Versions, clocks, and what collectors say of themselves."""

from email.utils import formatdate
from pathlib import Path

import pytest

from nissa.doctor import collector, versions
from nissa.doctor.check_result import Level
from nissa.doctor.clock import Reading, compare
from nissa.doctor.http import HttpResponse
from nissa.doctor.system import check_files

NOW = 1_800_000_000.25
GOOD = {
    "python": "3.12.1",
    "torch": "2.9.0+cu128",
    "opentelemetry-api": "1.45.2",
    "opentelemetry-sdk": "1.45.1",
    "opentelemetry-exporter-otlp-proto-grpc": "1.45.0",
    "opentelemetry-exporter-otlp-proto-http": "1.45.0",
}


def test_what_is_installed_here_fits() -> None:
    found = versions.check_versions()
    assert {each.level for each in found} <= {Level.OK, Level.NOTE}
    assert "torch 2" in found[0].found


def test_versions_that_fit_are_no_finding() -> None:
    assert versions.judge(dict(GOOD)) == []


@pytest.mark.parametrize(
    ("name", "version", "level", "said"),
    [
        ("torch", None, Level.ERROR, "torch is not installed"),
        ("torch", "2.7.1", Level.ERROR, "2.7.1 is too old"),
        ("opentelemetry-sdk", "1.44.0", Level.ERROR, "1.44.0 is too old"),
        ("opentelemetry-exporter-otlp-proto-http", "1.46.0", Level.WARNING, "different releases"),
    ],
    ids=["missing", "old", "old-sdk", "other-release"],
)
def test_versions_that_do_not_fit_are_named(name: str, version: str | None, level: Level, said: str) -> None:
    found = versions.judge({**GOOD, name: version})
    assert any(each.level is level and said in each.found and each.advice for each in found), found


def reading(skew: float, seconds: float = 0.0) -> Reading:
    return Reading("there:1", formatdate(int(NOW + skew), usegmt=True), NOW, seconds)


@pytest.mark.parametrize(
    ("skew", "seconds", "level", "said"),
    [
        (0, 0, Level.OK, "agrees"),
        (-1.5, 0, Level.OK, "agrees"),
        (3, 0, Level.WARNING, "3 s ahead of ours"),
        (3, 4, Level.OK, "agrees"),
        (-45, 0, Level.WARNING, "behind ours"),
        (600, 0, Level.ERROR, "10.0 min ahead of ours"),
        (-3 * 86_400, 0, Level.ERROR, "3.0 d behind ours"),
    ],
)
def test_clocks_are_compared_within_what_can_be_known(skew: float, seconds: float, level: Level, said: str) -> None:
    (found,) = compare([reading(skew, seconds)])
    assert found.level is level
    assert said in found.found


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_clock_that_nobody_told_is_not_called_right(date: str) -> None:
    (found,) = compare([Reading("there:1", date, NOW, 0.0)])
    assert found.level is Level.NOTE
    assert "is not known" in found.found


def answer(status: int = 200, body: str = "") -> HttpResponse:
    return HttpResponse(status, body, "", NOW, 0.01)


@pytest.mark.parametrize(
    ("said", "asked_for", "level", "text"),
    [
        (answer(body='{"status":"Server available","uptime":"3h"}'), False, Level.OK, "Server available, up for 3h"),
        (answer(body="fine"), False, Level.OK, "healthy"),
        (answer(503, '{"status":"Server not available"}'), False, Level.ERROR, "503: Server not available"),
        (None, False, Level.NOTE, "is not known"),
        (None, True, Level.WARNING, "is not known"),
    ],
    ids=["available", "text", "unavailable", "silent", "silent-and-named"],
)
def test_a_health_check_is_read(said: HttpResponse | None, asked_for: bool, level: Level, text: str) -> None:
    found = collector.judge_health("http://c/", said, asked_for=asked_for)
    assert (found.level, text in found.found) == (level, True)


CALM = """# TYPE otelcol_receiver_refused_spans counter
otelcol_receiver_refused_spans_total{receiver="otlp"} 0
otelcol_exporter_queue_size{exporter="otlp",data_type="traces"} 1
otelcol_exporter_queue_capacity{exporter="otlp",data_type="traces"} 1000
"""


def test_counters_of_a_calm_collector_are_fine() -> None:
    (found,) = collector.judge_counters("http://c/metrics", answer(body=CALM), asked_for=False)
    assert found.level is Level.OK


@pytest.mark.parametrize(
    ("was", "is_", "said"),
    [
        ('"otlp"} 0', '"otlp"} 12', "12 spans were refused"),
        ('"traces"} 1\n', '"traces"} 950\n', "otlp traces is at 95%"),
        (
            "# TYPE",
            "otelcol_exporter_send_failed_log_records_total 3.4e3\n# TYPE",
            "3,400 log records were not delivered",
        ),
    ],
    ids=["refused", "queue", "failed"],
)
def test_counters_that_worry_are_told(was: str, is_: str, said: str) -> None:
    (found,) = collector.judge_counters("http://c/metrics", answer(body=CALM.replace(was, is_)), asked_for=False)
    assert found.level is Level.WARNING
    assert said in found.found


def test_counters_that_are_not_shown_are_a_finding_only_where_they_were_asked_for() -> None:
    assert collector.judge_counters("u", None, asked_for=False) == []
    assert collector.judge_counters("u", answer(404), asked_for=True)[0].level is Level.WARNING


def test_a_folder_that_does_not_exist_yet_can_be_written_and_is_not_made(tmp_path: Path) -> None:
    found = check_files(tmp_path / "a" / "b")
    assert found.level is Level.OK
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    found = check_files(tmp_path / "a" / "b")
    assert found.level is Level.ERROR
    assert "in the way" in found.found
