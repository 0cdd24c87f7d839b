"""Selections of what was recorded, and the messages of their assertions."""

from collections.abc import Callable

import pytest

from nissa import EventType, TelemetryEvent
from nissa.diagnostics.finding import Certainty, Finding
from nissa.testing import Events, Findings, Metrics, Point, Span, Spans


def span(name: str, parent: str | None = None, **attributes: object) -> Span:
    return Span(name, "t1", f"id-{name}", parent, 0, 1_500_000_000, attributes, [], [], error=False, message="")


def point(metric: str, value: float, time: int = 0, kind: str = "gauge", **attributes: object) -> Point:
    return Point(metric, "", kind, attributes, time, None, value, 0, float("nan"), {})


SPANS = Spans([span("seed"), span("seed.training", "id-seed", slot="a"), span("seed.training", "id-seed", slot="b")])


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as raised:
        call()
    return str(raised.value)


def test_selections_are_sequences_that_conditions_narrow() -> None:
    assert [each.name for each in SPANS] == ["seed", "seed.training", "seed.training"]
    assert SPANS.named("seed.training").with_attributes(slot="b").one() is SPANS[2]
    assert SPANS.with_attributes({"slot": "a"}) == [SPANS[1]]
    assert SPANS.with_attributes({"slot": pytest.approx(1)}) == []
    assert SPANS.children_of(SPANS.named("seed").one()).count(2) == SPANS[1:]
    assert SPANS.in_trace("t1").names == {"seed": 1, "seed.training": 2}
    assert SPANS.where(lambda each: each.duration > 1.4).count(3)
    SPANS.named("seed.blending").none()
    assert SPANS.in_trace("t2") == Spans([])
    assert SPANS[:1] != SPANS


def test_an_attribute_that_is_absent_is_not_one_that_is_none() -> None:
    found = Spans([span("a"), span("b", key=None)])
    assert found.with_attributes(key=None).one().name == "b"


def test_a_name_that_was_not_recorded_fails_with_those_that_were() -> None:
    assert failure(SPANS.named("seed.trainin").one) == (
        "Expected one span named 'seed.trainin', found none. Did you mean 'seed.training'? "
        "Recorded names: seed, seed.training (2)."
    )
    assert failure(Spans([]).named("seed").one) == "Expected one span named 'seed', found none; no span was recorded."
    # The first condition that leaves nothing is the one that the message is about.
    assert "Recorded names: seed, seed.training (2)." in failure(SPANS.named("x").with_attributes(slot="a").one)


def test_other_assertions_fail_with_what_they_found() -> None:
    training = SPANS.named("seed.training")
    assert failure(training.one) == (
        "Expected one span named 'seed.training', found 2:\n"
        "  seed.training (1.5 s) slot='a'\n"
        "  seed.training (1.5 s) slot='b'"
    )
    assert failure(training.with_attributes(slot="c").one) == (
        "Expected one span named 'seed.training' with slot='c', found none. There are 2 that are not with slot='c':\n"
        "  seed.training (1.5 s) slot='a'\n"
        "  seed.training (1.5 s) slot='b'"
    )
    assert failure(SPANS.named("seed").none) == "Expected no span named 'seed', found 1:\n  seed (1.5 s)"
    assert failure(lambda: training.count(1)).startswith("Expected 1 span named 'seed.training', found 2:")
    many = failure(Spans([span("a")] * 20).one)
    assert many.endswith("\n  ... and 8 more")
    assert many.count("a (1.5 s)") == 12


def test_events_are_selected_by_type_and_data() -> None:
    events = Events(
        [
            TelemetryEvent(EventType.SEED_GERMINATED, seed_id="s", data={"blueprint_id": "conv"}),
            TelemetryEvent("MINE", data={"a": 1}),
        ]
    )
    assert events.of("SEED_GERMINATED") == events.of(EventType.SEED_GERMINATED) == events[:1]
    assert events.of("MINE").with_attributes(a=1).one() is events[1]
    assert events.types == {"SEED_GERMINATED": 1, "MINE": 1}
    assert failure(events.of("SEED_CULLED").one) == (
        "Expected one event named 'SEED_CULLED', found none. Recorded names: SEED_GERMINATED, MINE."
    )
    assert failure(lambda: events.count(3)).endswith("SEED_GERMINATED seed='s' blueprint_id='conv'\n  MINE a=1")


def test_findings_are_selected_by_their_fields() -> None:
    def finding(*, raised: bool) -> Finding:
        return Finding(
            name="loss_spike", raised=raised, seen="It rose", certainty=Certainty.LIKELY, advice="Look.", step=7
        )

    findings = Findings([finding(raised=True), finding(raised=False)])
    assert findings.named("loss_spike").raised.with_attributes(step=7).one() is findings[0]
    assert findings.cleared == findings[1:]
    assert "loss_spike raised at step 7: It rose (likely). Look." in failure(findings.one)


def test_a_metric_is_read_one_stream_at_a_time() -> None:
    metrics = Metrics(
        [point("loss", 2.0, 20, phase="train"), point("loss", 3.0, 10, phase="train"), point("loss", 9.0, phase="val")]
    )
    assert metrics.values("loss", {"phase": "train"}) == [3.0, 2.0]
    assert metrics.last("loss", {"phase": "train"}) == 2.0
    assert [each.time for each in metrics.stream("loss", {"phase": "train"})] == [10, 20]
    assert failure(lambda: metrics.last("loss")) == (
        "Expected one stream named 'loss', found 2:\n  phase='train'\n  phase='val'"
    )
    assert failure(lambda: metrics.last("los")) == (
        "Expected a stream named 'los', found none. Did you mean 'loss'? Recorded names: loss (3)."
    )
    assert "There are 3 that are not with phase='x'" in failure(lambda: metrics.last("loss", {"phase": "x"}))
    histogram = Metrics([point("seconds", float("nan"), kind="histogram")])
    assert "seconds is a histogram; read .count and .sum" in failure(lambda: histogram.last("seconds"))
