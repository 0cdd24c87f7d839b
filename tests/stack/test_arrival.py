"""What a run tells arrives in Prometheus, in Jaeger and in the collector's lines: all of it, by each transport."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nissa import EventType, Stage
from nissa.seeds.stages import ALIVE, TRANSITIONS
from nissa.semconv import attributes as attr
from nissa.semconv import metrics
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.cases import for_each
from tests.stack.matrix import ROWS, Place
from tests.stack.queries import ended, links, noted, parent, settled, spans, tags, trace
from tests.stack.runs import Told, everything
from tests.stack.seen import seen, things
from tests.stack.training import TRANSPORTS, Transport, service_name
from tests.support import until

EACH_TRANSPORT = pytest.mark.parametrize("transport", TRANSPORTS, ids=str)

COUNTS: dict[str, tuple[str, float | None]] = {
    "refused transitions": ("sum(nissa_seed_refused_transitions_total{%s})", 1),
    "unsampled seeds": ("sum(nissa_seed_unsampled_total{%s})", 1),
    "culls": ('sum(nissa_seed_transitions_total{%s, nissa_seed_to="culled"})', 2),
    "blendings": ('sum(nissa_seed_transitions_total{%s, nissa_seed_from="training", nissa_seed_to="blending"})', 2),
    "gates": ("sum(nissa_seed_gate_evaluations_total{%s})", 2),
    "failed checks": ('sum(nissa_seed_gate_failed_checks_total{%s, nissa_gate_check="gain"})', 1),
    "lives": ("sum(nissa_seed_lifespan_count{%s})", 4),
    "dormant seeds": ('nissa_seed_count{%s, nissa_seed_stage="dormant"}', 1),
    # Of the 3 steps in each of the 9 epochs, the first has none before it to be measured from.
    "durations": ("nissa_step_duration_seconds_count{%s}", 9 * 2),
    # The network has 90 parameters; the input of the last step is infinite, and 8 gradients with it.
    "gradients": ("histogram_count(sum(nissa_gradient_magnitude{%s}))", 9 * 3 * 90 - 8),
    "logged scalar": ('nissa_scalar{%s, nissa_scalar_name="kl"}', 0.25),
    "logged samples": ('nissa_items_total{%s, nissa_item_kind="samples"}', 9 * 3 * 16),
    "logged tokens": ('nissa_items_total{%s, nissa_item_kind="tokens"}', 9 * 3 * 128),
    "gradients that are no number": ("sum(nissa_gradient_nonfinite_total{%s})", 8),
}
"""What the two processes did, as Prometheus adds it up, whatever temporality they sent it in."""


@pytest.fixture
def told(stack: Stack, stack_folder: Path, tmp_path: Path, transport: Transport) -> Told:
    return everything(stack, stack_folder, tmp_path, transport)


def test_every_declared_name_has_a_row() -> None:
    rows = {(row.what, row.name) for row in ROWS}
    declared = {*_declared()} | {("resource", ""), ("log record", "")}
    assert declared - rows == set()
    foreign = ("event", names.EVENT_PREFIX + "anything")
    assert rows - declared == {foreign}
    assert len(ROWS) == len(rows)


def _declared() -> Iterator[tuple[str, str]]:
    yield from (("metric", spec.name) for spec in metrics.ALL)
    apart = {"EVENT_PREFIX", "SEED_STAGE_PREFIX", "STARTED_SUFFIX"}
    for constant, name in vars(names).items():
        if name == names.EVENT_FAILED_CHECK:
            yield "span event", name
        elif constant.startswith("EVENT_") and constant not in apart:
            yield "event", name
            if name in {names.EVENT_GATE, names.EVENT_REFUSED, names.EVENT_ISOLATION}:
                yield "span event", name
        elif constant.isupper() and constant not in apart:
            yield "span", name
    yield from (("span", name + names.STARTED_SUFFIX) for name in (names.RUN, names.SEED, names.EPOCH))
    reached = {Stage.GERMINATED}.union(*(TRANSITIONS[stage] for stage in Stage if stage is not Stage.UNKNOWN))
    for stage in reached:
        yield "span", names.SEED_STAGE_PREFIX + stage.label
        if stage in ALIVE | {Stage.EMBARGOED, Stage.RESETTING}:  # the others are moments
            yield "span", names.SEED_STAGE_PREFIX + stage.label + names.STARTED_SUFFIX
    own_names = {EventType.SEED_STAGE_CHANGED, EventType.SEED_GATE_EVALUATED, EventType.ISOLATION_VIOLATION}
    no_events = {EventType.EPOCH_STARTED, EventType.EPOCH_COMPLETED, EventType.LOG_RECORDED}
    yield from (("event", names.EVENT_PREFIX + kind.lower()) for kind in set(EventType) - own_names - no_events)


def test_every_declared_attribute_has_a_row() -> None:
    declared = {value for name, value in vars(attr).items() if name.isupper()}
    # Names of hyperparameters and packages begin with the first two; they are no attributes themselves. Not every machine
    # has a repository with a branch.
    apart = {attr.RUN_CONFIG, attr.PACKAGE, attr.EVENT_TRUNCATED, attr.VCS_REVISION, attr.VCS_REFERENCE}
    assert {key for row in ROWS for key in row.attributes.split()} == declared - apart


@for_each("spec", metrics.ALL, ids=lambda spec: spec.name)
def test_a_metric_s_row_has_the_attributes_that_are_declared(spec: metrics.MetricSpec) -> None:
    (row,) = [row for row in ROWS if (row.what, row.name) == ("metric", spec.name)]
    assert set(row.attributes.split()) - {*metrics.EVERY_STREAM} == {*spec.attributes}


@EACH_TRANSPORT
@pytest.mark.parametrize("place", Place, ids=lambda place: place.name.lower())
def test_every_row_arrives_and_nothing_that_has_none(stack: Stack, told: Told, place: Place) -> None:
    if place is Place.LINES and stack.docker:
        pytest.skip("the lines are in a volume of the container")
    wanted = {thing for row in ROWS if place in row.places for thing in things(row)}
    assert wanted
    found = settled(lambda: seen(stack, place, told.service), wanted)
    assert sorted(wanted - found) == []
    assert sorted(found - wanted) == []


@EACH_TRANSPORT
@for_each("what", COUNTS)
def test_counts_are_those_of_the_run(told: Told, what: str) -> None:
    expression, expected = COUNTS[what]
    asked = expression.replace("%s", f'job="{told.service}"')
    assert settled(lambda: told.past.value(asked), expected) == expected


@EACH_TRANSPORT
def test_a_resumed_seed_goes_on_in_its_trace(stack: Stack, told: Told) -> None:
    before, after = told.first["seeds"]["c"], told.second
    assert after["trace_id"] == before["trace_id"]
    found = until(lambda: _lives(stack, before["trace_id"], 2), "both lives")
    roots = {span["spanID"]: span for span in found if span["operationName"] == names.SEED}
    first, resumed = roots[before["span_id"]], roots[after["span_id"]]
    assert (parent(first), parent(resumed)) == (None, before["span_id"])
    assert [tags(span)[attr.SEED_ATTEMPT] for span in (first, resumed)] == [0, 1]
    assert [tags(span)[attr.SEED_OUTCOME] for span in (first, resumed)] == ["interrupted", "fossilized"]
    assert ended(first) <= resumed["startTime"]
    stages = [span["operationName"] for span in found if parent(span) == after["span_id"] and not _pending(span)]
    assert sorted(stages) == ["seed.blending", "seed.fossilized", "seed.probationary", "seed.training"]


@EACH_TRANSPORT
def test_what_happens_to_a_seed_is_noted_on_its_stage(stack: Stack, told: Told) -> None:
    found = until(lambda: _lives(stack, told.first["seeds"]["a"]["trace_id"], 1), "the seed")
    (training,) = [span for span in found if span["operationName"] == "seed.training"]
    (gate,) = noted(training, names.EVENT_GATE)
    assert (gate[attr.GATE_NAME], gate[attr.GATE_PASSED], gate[attr.GATE_SCORE]) == ("G2", False, 0.1)
    (refused,) = noted(training, names.EVENT_REFUSED)
    assert "TRAINING -> GERMINATED" in refused[attr.TRANSITION_REFUSED]
    (violation,) = noted(training, names.EVENT_ISOLATION)
    assert violation[attr.EVENT_MESSAGE] == "the host moved"
    (blending,) = [span for span in found if span["operationName"] == "seed.blending"]
    assert [gate[attr.GATE_NAME] for gate in noted(blending, names.EVENT_GATE)] == ["G3"]


@EACH_TRANSPORT
def test_a_slot_cools_down_in_the_trace_of_the_seed_that_was_culled(stack: Stack, told: Told) -> None:
    seed = told.first["seeds"]["b"]
    wanted = [(f"seed.{stage}", at // 1000) for stage, at in seed["history"]]

    def look() -> list[tuple[str, int]]:
        stages = [span for span in trace(stack, seed["trace_id"]) if parent(span) == seed["span_id"]]
        return [(span["operationName"], span["startTime"]) for span in stages if not _pending(span)]

    assert settled(look, wanted) == wanted
    (link,) = links(next(span for span in trace(stack, seed["trace_id"]) if span["operationName"] == "seed.culled"))
    epochs = {"operationName": names.EPOCH, "spanID": link[1]}
    until(lambda: any(epochs.items() <= span.items() for span in trace(stack, link[0])), "the epoch of the cull")


def _pending(span: Any) -> bool:
    return bool(tags(span).get(attr.SPAN_PENDING))


def _lives(stack: Stack, trace_id: str, count: int) -> list[Any] | None:
    found = trace(stack, trace_id)
    return found if [span["operationName"] for span in found].count(names.SEED) == count else None


def test_a_service_that_never_sent_has_no_row(stack: Stack) -> None:
    nobody = service_name("nobody")
    assert seen(stack, Place.PROMETHEUS, nobody) == seen(stack, Place.JAEGER, nobody) == set()
    assert spans(stack, nobody) == {}
