"""Findings, the report made of them, and what is kept out of it."""

import io
import json

import pytest
from rich.console import Console

from nissa.doctor.check_result import CheckResult, Level, merged_by_signal
from nissa.doctor.checks import DoctorReport, _in_error_boundary
from nissa.doctor.rendering import as_json, table
from nissa.doctor.secrets import Secrets
from nissa.otel.otlp.redaction import HIDDEN


def finding(level: Level = Level.OK, found: str = "found", *signals: str, advice: str = "") -> CheckResult:
    return CheckResult("check", level, found, advice, signals)


def test_findings_that_differ_in_signals_alone_are_one() -> None:
    both = merged_by_signal(
        [finding(Level.OK, "a", "traces"), finding(Level.OK, "b", "metrics"), finding(Level.OK, "a", "logs")]
    )
    assert both == [finding(Level.OK, "a", "traces", "logs"), finding(Level.OK, "b", "metrics")]


@pytest.mark.parametrize(
    ("level", "healthy"), [(Level.OK, True), (Level.NOTE, True), (Level.WARNING, True), (Level.ERROR, False)]
)
def test_only_errors_are_unhealthy(level: Level, healthy: bool) -> None:
    assert DoctorReport((finding(), finding(level)), {}).healthy is healthy


def test_the_report_is_strict_json() -> None:
    report = DoctorReport((finding(Level.ERROR, "broken", "logs", advice="mend it"),), {"OTEL_X": "y"})
    assert json.loads(json.dumps(as_json(report))) == {
        "healthy": False,
        "findings": [
            {"check": "check", "level": "error", "found": "broken", "advice": "mend it", "signals": ["logs"]},
        ],
        "settings": {"OTEL_X": "y"},
    }


def test_the_table_shows_what_was_found_and_what_to_do() -> None:
    stream = io.StringIO()
    report = DoctorReport((finding(Level.WARNING, "odd [brackets]", "logs", advice="do this"),), {})
    Console(file=stream, width=100).print(table(report))
    said = stream.getvalue()
    assert "logs: odd [brackets]" in said
    assert "-> do this" in said
    assert "0 errors, 1 warning" in said


def test_a_check_that_fails_is_a_finding_and_no_traceback() -> None:
    def fails() -> list[CheckResult]:
        raise ValueError("what went wrong")

    (found,) = _in_error_boundary("clock", fails)
    assert (found.check, found.level) == ("clock", Level.ERROR)
    assert "ValueError: what went wrong" in found.found


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer%20s3cret",
        "Bearer s3cret",
        "s3cret",
        "hunter22",
        "pass%2Fword",
        "pass/word",
        "who:pass%2Fword",
        "k%2By",
        "k+y",
    ],
)
def test_headers_and_passwords_are_hidden_in_every_spelling(secret: str) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret,x-empty=",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "x-key=hunter22",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://who:pass%2Fword@example.org:4317?api_key=k%2By",
    }
    hidden = Secrets(environ).cleared(finding(Level.ERROR, f"it said <{secret}>", advice=f"not {secret}"))
    assert secret not in hidden.found + hidden.advice
    assert HIDDEN in hidden.found


def test_a_header_without_a_name_is_hidden_too() -> None:
    assert Secrets({"OTEL_EXPORTER_OTLP_HEADERS": "justatoken"}).hide("a justatoken b") == f"a {HIDDEN} b"


def test_what_is_no_secret_is_shown() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "x-team=a", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://example.org:4317"}
    assert Secrets(environ).hide("a http://example.org:4317 x-team") == "a http://example.org:4317 x-team"
