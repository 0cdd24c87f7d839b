"""The demo's telemetry, asked for over the APIs of Jaeger and Prometheus and held against the demo's own report."""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.cases import for_each
from tests.stack.queries import Past, ended, fetch, links, noted, parent, settled, tags, trace
from tests.stack.runs import Report, demonstrated
from tests.stack.seen import series
from tests.stack.training import TRANSPORTS, Made, Transport
from tests.support import until

SILENT = {
    metrics.SEED_UNSAMPLED,
    metrics.SEED_REFUSED,
    metrics.STEP_SKIPPED,
    metrics.SCALAR,
    metrics.ITEMS,
    metrics.BACKWARD_VALUE,
    metrics.CLIP_NORM,
    metrics.CLIP_FACTOR,
    metrics.UPDATE_RATIO,
    metrics.SHARPNESS,
    metrics.STABILITY_MARGIN,
    metrics.DEVICE_MEMORY,
    metrics.STEP_SKEW,
    metrics.REPLICA_COMPARISONS,
    metrics.REPLICA_MISMATCH,
}
"""Metrics of which a demo that goes well, with the profile it has, has no points; `test_arrival` makes them happen."""

MICROSECOND = 1
"""Jaeger rounds the beginning of a span and its duration down, each for itself."""

# A demo takes most of a minute, so the second way is for those who have the time; smaller runs take it in every test.
pytestmark = pytest.mark.parametrize(
    "transport", [TRANSPORTS[0], pytest.param(TRANSPORTS[1], marks=pytest.mark.full)], ids=str
)


@pytest.fixture
def made(stack: Stack, stack_folder: Path, tmp_path: Path, transport: Transport) -> Made:
    return demonstrated(stack, stack_folder, tmp_path, transport)


@pytest.fixture
def demo(made: Made) -> Report:
    """Return what the demo says of itself."""
    report: Report = made.told
    return report


@pytest.fixture
def past(made: Made) -> Past:
    """Return Prometheus as it was at the demo's end."""
    return made.past


def _seeds(report: Report) -> list[Report]:
    return [seed for environment in report["environments"] for seed in environment["seeds"]]


def _life(stack: Stack, seed: Report) -> tuple[Any, list[Any]]:
    """Return the root of a seed's trace and its stages in order; everything else is checked to be a twin of one."""

    def look() -> list[Any] | None:
        spans = trace(stack, seed["trace_id"])
        return spans if any(span["operationName"] == names.SEED for span in spans) else None

    found = until(look, f"the trace of {seed['seed_id']}")
    (root,) = [span for span in found if span["operationName"] == names.SEED]
    twins = [span for span in found if span["operationName"].endswith(names.STARTED_SUFFIX)]
    assert all(tags(span)[attr.SPAN_PENDING] is True and span["duration"] == 0 for span in twins)
    gates = [span for span in found if span["operationName"] == names.GATE]
    stages = [span for span in found if span is not root and span not in (*twins, *gates)]
    assert {parent(span) for span in gates} <= {span["spanID"] for span in stages}
    lasting = {span["spanID"]: span["operationName"] for span in (root, *stages) if not _is_end(span)}
    assert {parent(span): span["operationName"] for span in twins} == {
        span_id: name + names.STARTED_SUFFIX for span_id, name in lasting.items()
    }
    return root, stages


def _is_end(span: Any) -> bool:
    return span["operationName"] in {names.SEED_STAGE_PREFIX + end for end in ("fossilized", "culled")}


def test_seeds_of_several_blueprints_are_kept_and_refused_for_what_they_did(demo: Report) -> None:
    seeds = _seeds(demo)
    assert len(seeds) >= 6
    assert len({seed["blueprint"] for seed in seeds}) >= 4
    kept = [seed for seed in seeds if seed["outcome"] == "fossilized"]
    refused = [seed for seed in seeds if seed["outcome"] == "culled"]
    assert kept
    assert refused
    for seed in kept:
        assert seed["improvement"] >= 0.01
        assert seed["gates"][-1]["gate"] == "G5"
        assert seed["gates"][-1]["passed"]
    for seed in refused:
        assert not seed["gates"][-1]["passed"]
        assert seed["reason"]


def test_growing_helped_both_networks(demo: Report) -> None:
    for environment in demo["environments"]:
        assert environment["final_accuracy"] > environment["baseline_accuracy"]


def test_jaeger_has_the_life_of_every_seed(stack: Stack, demo: Report) -> None:
    for seed in _seeds(demo):
        root, stages = _life(stack, seed)
        told = tags(root)
        assert told[attr.SEED_ID] == seed["seed_id"]
        assert told[attr.SEED_SLOT] == seed["slot"]
        assert told[attr.BLUEPRINT_ID] == seed["blueprint"]
        assert told[attr.SEED_PARAMETERS] == seed["parameters"]
        assert told[attr.SEED_OUTCOME] == seed["outcome"]
        assert told.get(attr.SEED_CULL_REASON) == seed["reason"]
        assert told.get(attr.SEED_IMPROVEMENT) == pytest.approx(seed["improvement"])
        assert parent(root) is None
        assert {parent(span) for span in stages} == {root["spanID"]}


def test_a_seed_s_stages_follow_each_other_when_the_demo_says_so(stack: Stack, demo: Report) -> None:
    for seed in _seeds(demo):
        root, stages = _life(stack, seed)
        assert [(span["operationName"], span["startTime"]) for span in stages] == [
            (f"seed.{stage['stage']}", stage["time_unix_nano"] // 1000) for stage in seed["stages"]
        ]
        for before, after in pairwise(stages):
            assert abs(ended(before) - after["startTime"]) <= MICROSECOND
        assert root["startTime"] == stages[0]["startTime"]
        assert abs(ended(root) - ended(stages[-1])) <= MICROSECOND


def test_a_gate_is_noted_on_the_stage_that_it_judged(stack: Stack, demo: Report) -> None:
    judged = 0
    for seed in _seeds(demo):
        _, stages = _life(stack, seed)
        told = [(span["operationName"], gate) for span in stages for gate in noted(span, names.EVENT_GATE)]
        assert [(stage, gate[attr.GATE_NAME], gate[attr.GATE_PASSED], _checks(gate)) for stage, gate in told] == [
            (f"seed.{gate['stage']}", gate["gate"], gate["passed"], (gate["checks_passed"], gate["checks_failed"]))
            for gate in seed["gates"]
        ]
        assert [gate.get(attr.GATE_SCORE) for _, gate in told] == [
            pytest.approx(gate["score"]) for gate in seed["gates"]
        ]
        judged += len(told)
    assert judged


def _checks(gate: dict[str, Any]) -> tuple[list[str], list[str]]:
    # Jaeger keeps a list of words as JSON.
    passed, failed = (json.loads(gate.get(key, "[]")) for key in (attr.GATE_CHECKS_PASSED, attr.GATE_CHECKS_FAILED))
    return passed, failed


def test_a_stage_links_to_the_epoch_in_which_it_began(stack: Stack, demo: Report) -> None:
    for seed in _seeds(demo):
        _, stages = _life(stack, seed)
        for span, stage in zip(stages, seed["stages"], strict=True):
            ((trace_id, span_id),) = links(span)
            spans = {each["spanID"]: each for each in until(partial(trace, stack, trace_id), "the epoch")}
            epoch = spans.pop(span_id)
            assert epoch["operationName"] == names.EPOCH
            assert tags(epoch)[attr.EPOCH] == stage["epoch"]
            assert tags(epoch)[attr.ENV_ID] == str(seed["env_id"])
            assert epoch["startTime"] <= span["startTime"] <= ended(epoch) + MICROSECOND
            assert {parent(each) for each in spans.values()} == {span_id}
            kinds = {each["operationName"] for each in spans.values()} - {names.RED_FLAG}
            assert kinds == {"epoch.started", names.STEP, names.VALIDATION}


def test_jaeger_finds_seeds_by_blueprint_and_outcome(stack: Stack, demo: Report) -> None:
    groups: dict[tuple[str, str], set[str]] = {}
    for seed in _seeds(demo):
        groups.setdefault((seed["blueprint"], seed["outcome"]), set()).add(seed["trace_id"])
    assert {outcome for _, outcome in groups} >= {"fossilized", "culled"}
    for (blueprint, outcome), wanted in groups.items():
        asked = {attr.BLUEPRINT_ID: blueprint, attr.SEED_OUTCOME: outcome, attr.RUN_ID: demo["run_id"]}
        assert settled(partial(_search, stack, asked), wanted) == wanted


def _search(stack: Stack, wanted: dict[str, str]) -> set[str]:
    query: dict[str, str | float] = {"service": "nissa-demo", "operation": names.SEED, "limit": 100}
    found = fetch(f"{stack.jaeger}/api/traces", tags=json.dumps(wanted), **query)["data"] or []
    return {each["traceID"] for each in found}


@for_each("spec", [spec for spec in metrics.ALL if spec not in SILENT], ids=lambda spec: spec.name)
def test_prometheus_has_every_metric(past: Past, demo: Report, spec: metrics.MetricSpec) -> None:
    selector = f'{series(spec)}{{nissa_run_id="{demo["run_id"]}"}}'
    found = until(lambda: past.samples(f"last_over_time({selector}[30m])"), f"{selector} in Prometheus")
    labels = {prometheus.label(key) for key in spec.attributes}
    assert labels <= {label for sample in found for label in sample["metric"]}


def test_prometheus_counts_the_stages_and_gates_that_the_demo_reports(past: Past, demo: Report) -> None:
    seeds = _seeds(demo)
    for blueprint in {seed["blueprint"] for seed in seeds}:
        here, label = [seed for seed in seeds if seed["blueprint"] == blueprint], f'nissa_blueprint_id="{blueprint}"'
        wanted = {
            "nissa_seed_transitions_total": sum(len(seed["stages"]) - 1 for seed in here),
            "nissa_seed_lifespan_count": sum(seed["outcome"] in {"fossilized", "culled"} for seed in here),
            "nissa_seed_gate_failed_checks_total": sum(
                len(gate["checks_failed"]) for seed in here for gate in seed["gates"]
            ),
        }
        look = partial(_totals, past, demo, label, tuple(wanted))
        assert settled(look, wanted) == wanted
    gates = [gate["passed"] for seed in seeds for gate in seed["gates"]]
    for passed in (True, False):
        evaluations = {"nissa_seed_gate_evaluations_total": gates.count(passed)}
        look = partial(_totals, past, demo, f'nissa_gate_passed="{str(passed).lower()}"', tuple(evaluations))
        assert settled(look, evaluations) == evaluations


def _totals(past: Past, demo: Report, label: str, names: tuple[str, ...]) -> dict[str, int]:
    selectors = {name: f'{name}{{nissa_run_id="{demo["run_id"]}", {label}}}' for name in names}
    return {name: int(past.value(f"sum(last_over_time({each}[30m]))") or 0) for name, each in selectors.items()}


def test_points_have_the_times_of_their_steps(past: Past, demo: Report) -> None:
    selector = f'nissa_step{{nissa_run_id="{demo["run_id"]}", nissa_env_id="0"}}[30m]'
    (found,) = until(lambda: past.samples(selector), "steps")
    times = [float(time) for time, _ in found["values"]]
    steps = [float(step) for _, step in found["values"]]
    assert steps == sorted(steps)
    # Exports are 5 s apart; many points lie between two of them, at different times.
    assert len(set(times)) == len(times) > 100
