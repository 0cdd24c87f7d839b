"""The demo, as a user runs it, held against the telemetry that it wrote."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nissa.testing import Span
from tests.support import points, run_demo, spans

pytestmark = pytest.mark.full
"""It takes a minute; `tests/stack/test_demo.py` runs the same demo with a collector in every run of the tests."""

Report = dict[str, Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("demo")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("NISSA_", "OTEL_"))}
    return folder, run_demo(folder, environ)


def _seeds(report: Report) -> list[Report]:
    return [seed for environment in report["environments"] for seed in environment["seeds"]]


def test_each_seed_is_a_trace_that_tells_what_the_report_says(demo: tuple[Path, Report]) -> None:
    folder, report = demo
    told = spans(folder / report["directory"])
    for seed in _seeds(report):
        trace = [span for span in told if span.trace_id == seed["trace_id"]]
        root = next(span for span in trace if span.name == "seed")
        assert root.attributes["nissa.seed.id"] == seed["seed_id"]
        assert root.attributes["nissa.seed.outcome"] == seed["outcome"]
        assert root.attributes["nissa.blueprint.id"] == seed["blueprint"]
        assert root.attributes.get("nissa.seed.improvement") == pytest.approx(seed["improvement"])
        stages = sorted((span for span in trace if _is_stage(span)), key=lambda span: (span.start, span.end))
        assert [(span.name, span.start) for span in stages] == [
            (f"seed.{stage['stage']}", stage["time_unix_nano"]) for stage in seed["stages"]
        ]
        for before, after in pairwise(stages):
            assert before.end == after.start
        gates = [
            (event["nissa.gate.name"], event["nissa.gate.passed"])
            for span in stages
            for name, _, event in span.events
            if name == "nissa.seed.gate"
        ]
        assert gates == [(gate["gate"], gate["passed"]) for gate in seed["gates"]]
        epochs = {(span.trace_id, span.span_id) for span in told if span.name == "epoch"}
        assert {link for span in stages for link in span.links} <= epochs


def _is_stage(span: Span) -> bool:
    return span.name.startswith("seed.") and not span.name.endswith(".started")


def test_the_gradients_of_seeds_appear_and_vanish_with_them(demo: tuple[Path, Report]) -> None:
    folder, report = demo
    norms = points(folder / report["directory"], "nissa.gradient.norm")
    lives = {
        (point.attributes["nissa.env.id"], point.attributes["nissa.parameter.name"]): point.time for point in norms
    }
    last = max(point.time for point in norms)
    host = [time for (_, name), time in lives.items() if "slot" not in name and "seed" not in name]
    assert host
    assert last - max(host) < 1e9
    assert len(lives) > len(host)


def test_every_step_has_its_point_however_many_parameters_have_theirs(demo: tuple[Path, Report]) -> None:
    folder, report = demo
    steps = points(folder / report["directory"], "nissa.step")
    for environment in ("0", "1"):
        values = [point.value for point in steps if point.attributes["nissa.env.id"] == environment]
        # An export holds 20,000 points; the streams of parameters give way before the step's own.
        assert values == list(range(len(values)))


def test_it_ends_with_a_report(demo: tuple[Path, Report]) -> None:
    folder, report = demo
    page = folder / report["page"]
    assert page.parent == folder / report["directory"]
    assert 1_000_000 < page.stat().st_size < 6_000_000


def test_no_telemetry_was_lost(demo: tuple[Path, Report]) -> None:
    folder, report = demo
    outcomes = {
        point.attributes["nissa.event.outcome"] for point in points(folder / report["directory"], "nissa.hub.events")
    }
    assert outcomes == {"delivered"}
