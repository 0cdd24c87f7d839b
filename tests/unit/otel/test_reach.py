"""One warning when telemetry does not arrive, one message when it does again, and a word at the end."""

import logging
from collections.abc import Callable

import pytest

from nissa.otel.export.reach import Reach

Said = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """Return what was logged since the last call, besides debug."""
    caplog.set_level(logging.DEBUG, logger="nissa")

    def since() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records if record.levelno > logging.DEBUG]
        caplog.clear()
        return found

    return since


def test_a_way_that_fails_again_and_again_is_one_warning(said: Said) -> None:
    reach = Reach()
    for what in ("spans", "log records", "spans"):
        reach.failed(what, "there:4317", "Connection refused")
    ((level, text),) = said()
    assert level == "WARNING"
    assert "there:4317 (Connection refused)" in text
    assert "make stack" in text


def test_a_refusal_is_a_warning_of_its_own_with_its_reason(said: Said) -> None:
    reach = Reach()
    reach.failed("spans", "there", "Connection refused")
    reach.failed("metric points", "there", "UNAUTHENTICATED: no token", refused=True)
    reach.failed("spans", "there", "UNAUTHENTICATED: no token", refused=True)
    _, (level, text) = said()
    assert level == "WARNING"
    assert "refuses metric points (UNAUTHENTICATED: no token)" in text


def test_the_return_is_told_once_all_signals_arrive_with_what_was_lost(said: Said) -> None:
    reach = Reach()
    reach.failed("spans", "there", "why")
    reach.failed("metric points", "there", "why")
    reach.lose("metric points", 1200)
    said()
    reach.succeeded("spans", "there")
    assert said() == []
    reach.succeeded("metric points", "there")
    reach.succeeded("metric points", "there")
    ((level, text),) = said()
    assert level == "WARNING"
    assert "answers again; 1,200 metric points were lost" in text


def test_a_return_without_loss_is_no_warning(said: Said) -> None:
    reach = Reach()
    reach.failed("spans", "there", "why")
    reach.succeeded("spans", "there")
    assert said()[1] == ("INFO", "The collector at there answers again; nothing was lost.")


def test_what_worked_all_along_is_silent_to_the_end(said: Said) -> None:
    reach = Reach()
    reach.succeeded("spans", "there")
    reach.end({"spans": 0})
    assert said() == []


def test_a_late_end_is_the_one_warning_where_nothing_warned_before(said: Said) -> None:
    reach = Reach()
    reach.late("there", 5.0, "", {"spans": 3, "log records": 0})
    reach.failed("spans", "there", "a moment later")
    reach.late("there", 0.2, "", {"spans": 3})
    reach.end({"spans": 3})
    (level, text), *rest = said()
    assert level == "WARNING"
    assert "within 5.0 s (no answer so far): 3 spans wait" in text
    assert {each for each, _ in rest} == {"INFO"}


def test_a_loss_that_no_warning_explains_is_one_at_the_end(said: Said) -> None:
    reach = Reach()
    reach.lose("spans", 7)
    reach.end({"spans": 2})
    assert said() == [("WARNING", "Telemetry that never reached the collector: 9 spans.")]


def test_a_loss_after_the_return_is_a_warning_at_the_end_and_counted_once(said: Said) -> None:
    reach = Reach()
    reach.failed("spans", "there", "why")
    reach.lose("metric points", 5)
    reach.succeeded("spans", "there")
    reach.failed("spans", "there", "why")
    reach.lose("spans", 4)
    assert [level for level, _ in said()] == ["WARNING", "WARNING"]
    reach.end({})
    assert said() == [("WARNING", "Telemetry that never reached the collector: 4 spans.")]
