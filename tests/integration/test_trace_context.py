"""Runs that are started within the trace of another program."""

import logging
from pathlib import Path

import pytest

import nissa
from nissa.distributed.trace_context import TraceContext
from tests.integration.conftest import Toy
from tests.support import records, spans

pytestmark = pytest.mark.usefixtures("patient")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header",
    ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-01"],
)
def test_a_header_that_is_not_valid_is_no_context(header: str) -> None:
    assert TraceContext.parse(header) is None


@pytest.mark.parametrize("header", [HEADER, f"00-{TRACE}-{PARENT}-00"])
def test_a_valid_one_is_read_and_written(header: str) -> None:
    assert str(TraceContext.parse(header)) == header


def test_a_later_version_may_have_more_fields() -> None:
    assert str(TraceContext.parse(f"01-{TRACE}-{PARENT}-01-more")) == HEADER


def test_one_that_is_not_valid_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRACEPARENT", "mine")
    with caplog.at_level(logging.WARNING, "nissa"), nissa.start("minimal", console__enabled=False) as run:
        pass
    assert "TRACEPARENT is 'mine' and therefore ignored" in caplog.text
    assert run.directory is not None
    assert spans(run.directory) == []


def test_a_run_is_a_child_and_its_traces_have_links(monkeypatch: pytest.MonkeyPatch, toy: Toy) -> None:
    monkeypatch.setenv("TRACEPARENT", HEADER)
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        run.validate(loss=1.0)
        with run.epoch(0):
            seed = run.germinate("s")
            toy.step(run)
            run.validate(loss=1.0)
        state = run.state_dict()
        seed.cull(reason="done")
    folder = run.directory
    assert folder is not None
    found = [span for span in spans(folder) if not span.name.endswith(".started")]
    (own,) = (span for span in found if span.name == "run")
    assert (own.trace_id, own.parent_id, own.error) == (TRACE, PARENT, False)
    assert own.start <= min(span.start for span in found)
    roots = [span for span in found if span.parent_id is None]
    assert sorted(span.name for span in roots) == ["epoch", "seed", "validation"]
    assert all((TRACE, PARENT) in span.links for span in roots)
    children = [span for span in found if span.parent_id is not None]
    assert not any((TRACE, PARENT) in span.links for span in children)
    ended = next(each for each in records(folder) if each["eventName"] == "nissa.event.training_ended")
    assert ended["traceId"] == TRACE
    monkeypatch.delenv("TRACEPARENT")
    with nissa.start("standard", console__enabled=False, resume=state):
        pass
    again = [span for span in spans(folder) if span.name == "run"]
    assert [(span.trace_id, span.parent_id) for span in again] == [(TRACE, PARENT)] * 2


def test_an_error_that_ends_the_run_is_the_status_of_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", HEADER)
    with pytest.raises(KeyError), nissa.start("minimal", console__enabled=False):
        raise KeyError
    (folder,) = Path("nissa-runs").iterdir()
    assert [span.error for span in spans(folder) if span.name == "run"] == [True]
