import json
import logging
import math
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import nissa
from nissa import BlueprintAnalytics, ConfigurationError, NissaHub, Stage, TelemetryEvent
from nissa.analytics.beta import beta_cdf, beta_quantile
from nissa.config.analytics import AnalyticsConfig
from nissa.hub.critical import CriticalSections
from tests.support import points


def event(kind: str, seed: str, *, env: str | None = None, slot: str | None = None, **data: Any) -> TelemetryEvent:
    return TelemetryEvent(kind, seed_id=seed, slot_id=slot, env_id=env, data=data)


def story(analytics: BlueprintAnalytics, lives: list[tuple[str, bool, float]], env: str | None = None) -> None:
    """Let seeds live: blueprint, whether it was kept, and its improvement."""
    for number, (blueprint, kept, improvement) in enumerate(lives):
        name = f"s{number}"
        analytics.emit(event("SEED_GERMINATED", name, env=env, blueprint_id=blueprint, parameters=10))
        end = "SEED_FOSSILIZED" if kept else "SEED_CULLED"
        analytics.emit(event(end, name, env=env, improvement=improvement))


def shown(table: Any) -> str:
    console = Console(width=160, record=True, file=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_run_counts_before_a_call_returns() -> None:
    with nissa.start("minimal") as run:
        model = torch.nn.Linear(3, 3)
        run.watch(model, torch.optim.SGD(model.parameters()))
        kept = run.germinate("a", blueprint="norm", slot="x", parameters=6)
        assert run.analytics.snapshot()["environments"]["run"]["live"] == {"a": "norm"}
        kept.advance("training")
        with run.epoch(0):
            run.validate(accuracy=0.5)
        kept.advance("blending")
        with run.epoch(1):
            run.validate(accuracy=0.75)
        kept.fossilize(improvement=0.02)
        other = run.germinate("b", blueprint="mine", slot="y", parameters=4)
        other.advance(Stage.TRAINING)
        other.cull(reason="no gain", improvement=-0.01)
        told = run.analytics.snapshot()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["blueprints"]["norm"] == {
        "germinated": 1,
        "fossilized": 1,
        "culled": 0,
        "fossilization_rate": 1.0,
        "mean_accuracy_delta": 0.02,
        "mean_churn": None,
        "mean_blending_delta": 0.25,
        "mean_parameters": 6.0,
        "compute_multiplier": 1.02,
        "fossilized_by_slot": {"x": 1},
        "culled_by_slot": {},
        "culled_by_stage": {},
    }
    assert told["blueprints"]["mine"]["culled_by_stage"] == {"training": 1}
    assert told["blueprints"]["mine"]["mean_churn"] == -0.01
    assert told["environments"] == {
        "run": {
            "germinated": 2,
            "fossilized": 1,
            "culled": 1,
            "live": {},
            "distribution": {"norm": 1},
            "parameters_added": 6,
            "host_parameters": 12,
            "parameters_share": 0.5,
            "compute_cost": 1.02,
            "unknown_cost": [],
            "mean_fossilize_age_epochs": 2.0,
            "mean_cull_age_epochs": 0.0,
        }
    }


@pytest.mark.parametrize("last", ["change", "end", "both"])
def test_an_end_counts_once_however_it_is_told(last: str) -> None:
    with nissa.start("minimal", strict=False) as run:
        seed = run.germinate("a", blueprint="norm")
        seed.advance("training")
        if last != "end":
            seed.advance("culled")
        if last != "change":
            seed.cull(reason="no gain")
        assert run.analytics.snapshot()["blueprints"]["norm"]["culled"] == 1


@pytest.mark.parametrize("order", ["change", "end", "change, end", "end, change"])
def test_an_end_of_a_foreign_producer_counts_once_with_its_details(order: str) -> None:
    with nissa.start("minimal") as run:
        run.germinate("a", blueprint="norm").advance("training")
        for signal in order.split(", "):
            kind = "SEED_STAGE_CHANGED" if signal == "change" else "SEED_CULLED"
            data = {"from": "training", "to": "culled"} if signal == "change" else {"improvement": -0.5}
            run.hub.emit(event(kind, "a", **data))
    told = run.analytics.snapshot()["blueprints"]["norm"]
    assert (told["culled"], told["culled_by_stage"]) == (1, {"training": 1})
    assert told["mean_churn"] == (-0.5 if "end" in order else None)


def test_without_a_validation_since_it_began_to_blend_nothing_is_known_of_a_seed_s_effect() -> None:
    with nissa.start("minimal") as run:
        seed = run.germinate("a", blueprint="norm")
        seed.advance("training")
        run.validate(accuracy=0.5)
        seed.advance("blending")
        seed.cull(reason="late")
        assert run.analytics.snapshot()["blueprints"]["norm"]["mean_blending_delta"] is None


def test_a_new_host_has_no_live_seeds_of_the_earlier_one() -> None:
    with nissa.start("minimal") as run:
        run.germinate("a", blueprint="norm")
        run.analytics.reset()
        run.germinate("b", blueprint="norm")
        assert run.analytics.snapshot()["environments"]["run"]["live"] == {"b": "norm"}


def test_as_a_backend_it_counts_ends_that_only_a_change_of_stage_signals() -> None:
    analytics = BlueprintAnalytics()
    analytics.emit(event("SEED_GERMINATED", "a", blueprint_id="norm"))
    analytics.emit(event("SEED_STAGE_CHANGED", "a", to="culled"))
    assert analytics.flush(1)
    assert analytics.snapshot()["blueprints"]["norm"]["culled"] == 1


class Asking(logging.Handler):
    """A handler that uses analytics, as one may that forwards records to a dashboard."""

    def __init__(self, analytics: BlueprintAnalytics, sections: CriticalSections) -> None:
        super().__init__()
        self.analytics, self.sections, self.inside = analytics, sections, list[bool]()

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - as logging calls it
        self.inside.append(self.sections.inside)
        asking = threading.Thread(target=self.analytics.snapshot)
        asking.start()
        asking.join(10)
        self.inside.append(asking.is_alive())


def test_it_logs_outside_its_critical_section(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nissa.analytics")
    sections = CriticalSections()
    analytics = BlueprintAnalytics(sections=sections)
    handler, logger = Asking(analytics, sections), logging.getLogger("nissa.analytics")
    logger.addHandler(handler)
    try:
        story(analytics, [("norm", True, 0.5)])
    finally:
        logger.removeHandler(handler)
    assert handler.inside == [False] * 4


def test_counting_does_not_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nissa.analytics")
    analytics = BlueprintAnalytics()
    began = event("SEED_GERMINATED", "a", blueprint_id="norm")
    analytics.count(began)
    assert caplog.records == []
    analytics.log(began)
    assert [record.getMessage() for record in caplog.records] == ["Germinated 'a' (norm)"]
    assert analytics.snapshot()["blueprints"]["norm"]["germinated"] == 1


def test_a_refused_event_counts_nothing() -> None:
    with nissa.start("minimal", strict=False) as run:
        run.germinate("a", blueprint="norm")
        run.germinate("a", blueprint="norm")
        assert run.analytics.snapshot()["blueprints"]["norm"]["germinated"] == 1


def test_it_is_a_backend_of_a_hub_without_a_run() -> None:
    hub, analytics = NissaHub(), BlueprintAnalytics()
    assert hub.add_backend(analytics) == "analytics"
    hub.emit(event("SEED_GERMINATED", "a", env="3", blueprint_id="norm", parameters=7))
    hub.emit(event("SEED_FOSSILIZED", "a", env="3", improvement=0.01))
    hub.emit(event("SEED_CULLED", "nobody saw it germinate", env="3"))
    assert hub.close()
    told = analytics.snapshot()
    assert told["environments"]["3"]["parameters_added"] == 7
    assert told["blueprints"]["<unknown>"]["culled"] == 1
    assert told["environments"]["3"]["mean_cull_age_epochs"] is None


def test_an_unknown_blueprint_breaks_nothing_and_is_named() -> None:
    analytics = BlueprintAnalytics()
    story(analytics, [("mine", True, 0.1), ("attention", True, 0.1)])
    board = analytics.snapshot()["environments"]["run"]
    assert board["compute_cost"] == pytest.approx(1.35)
    assert board["unknown_cost"] == ["mine"]
    assert "without mine" in shown(analytics.scoreboard_table())


def test_a_blueprint_is_measured_without_touching_it() -> None:
    analytics = BlueprintAnalytics()
    host = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    seed = torch.nn.Linear(8, 8)
    before, state = {k: v.clone() for k, v in host.state_dict().items()}, torch.get_rng_state()
    found = analytics.measure("mine", seed, torch.ones(4, 8), host=host, host_example=torch.ones(4, 8))
    assert (found.parameters, found.flops, found.multiplier) == (72, 2 * 4 * 8 * 8, 2.0)
    assert analytics.multiplier("mine") == 2.0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in host.state_dict().items())
    assert host.training


def test_rent_and_episodes_count_from_their_baseline() -> None:
    analytics = BlueprintAnalytics(AnalyticsConfig(compute_price=2.0))
    story(analytics, [("attention", True, 0.1)])
    assert analytics.rent() == pytest.approx(2 * 0.35)
    analytics.begin_episode()
    assert analytics.rent() == 0
    assert analytics.episode().germinated == 0
    story(analytics, [("norm", True, 0.1), ("norm", False, 0.0)])
    assert analytics.rent() == pytest.approx(2 * 0.02)
    assert (analytics.episode().fossilized, analytics.episode().culled) == (1, 1)
    assert analytics.compute_cost() == pytest.approx(1.37)
    analytics.reset()
    assert analytics.compute_cost() == 1
    assert analytics.snapshot()["blueprints"]["attention"]["fossilized"] == 1


def test_a_prior_is_the_posterior_of_what_was_seen() -> None:
    analytics = BlueprintAnalytics(AnalyticsConfig(shrinkage=2))
    untried = analytics.prior("norm")
    assert (untried.alpha, untried.beta, untried.success, untried.accuracy_delta) == (1, 1, 0.5, None)
    assert [untried.low, untried.high] == pytest.approx([0.025, 0.975])
    story(analytics, [("norm", True, 0.04), ("norm", True, 0.02), ("norm", False, -0.01), ("lora", True, 0.0)])
    seen = analytics.prior("norm")
    assert (seen.alpha, seen.beta, seen.trials) == (3, 2, 3)
    assert seen.low < seen.success < seen.high
    # Two of strength at the mean of all, 0.02, and its own two, which add up to 0.06.
    assert seen.accuracy_delta == pytest.approx((2 * 0.02 + 0.06) / 4)
    drawn = [seen.sample(random.Random(number)) for number in range(2000)]  # noqa: S311 - statistics
    assert sum(seen.low < each < seen.high for each in drawn) / len(drawn) == pytest.approx(0.95, abs=0.02)


@given(st.floats(0, 1), st.floats(0.5, 50))
def test_beta_agrees_with_its_closed_forms(x: float, b: float) -> None:
    assert beta_cdf(x, 1, b) == pytest.approx(1 - (1 - x) ** b, abs=1e-12)
    assert beta_cdf(x, b, 1) == pytest.approx(x**b, abs=1e-12)
    assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), abs=1e-7)


@given(st.floats(0.001, 0.999), st.floats(0.5, 2000), st.floats(0.5, 2000))
def test_a_quantile_undoes_the_distribution(probability: float, a: float, b: float) -> None:
    assert beta_cdf(beta_quantile(probability, a, b), a, b) == pytest.approx(probability, abs=1e-6)


LIVES = st.lists(
    st.tuples(st.sampled_from(["norm", "lora", "mine"]), st.booleans(), st.integers(-64, 64).map(lambda n: n / 256)),
    max_size=8,
)


def counted(*stories: Any) -> BlueprintAnalytics:
    analytics = BlueprintAnalytics()
    for each in stories:
        story(analytics, each, env="0")
    return analytics


@given(LIVES, LIVES, LIVES)
def test_merging_is_what_one_process_would_have_counted(one: Any, two: Any, three: Any) -> None:
    forward, backward = BlueprintAnalytics(), BlueprintAnalytics()
    states = [counted(each).state_dict() for each in (one, two, three)]
    for state in states:
        forward.merge(json.loads(json.dumps(state)))
    for state in reversed(states):
        backward.merge(state)
    assert forward.snapshot() == backward.snapshot() == counted(one, two, three).snapshot()


def test_a_state_survives_a_second_process(tmp_path: Path) -> None:
    analytics = counted([("norm", True, 0.5)])
    analytics.set_host_parameters(40, "0")
    path = tmp_path / "state.json"
    path.write_text(json.dumps(analytics.state_dict()))
    script = (
        "import json, pathlib, sys; from nissa import BlueprintAnalytics, TelemetryEvent\n"
        "path = pathlib.Path(sys.argv[1]); analytics = BlueprintAnalytics()\n"
        "analytics.load_state_dict(json.loads(path.read_text()))\n"
        "analytics.emit(TelemetryEvent('SEED_CULLED', seed_id='b', env_id='0'))\n"
        "path.write_text(json.dumps(analytics.state_dict()))"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    analytics.load_state_dict(json.loads(path.read_text()))
    board = analytics.snapshot()["environments"]["0"]
    assert (board["fossilized"], board["culled"], board["parameters_share"]) == (1, 1, 0.25)


@pytest.mark.parametrize("state", [{}, {"version": 2}, {"version": 1, "blueprints": 3}])
def test_a_state_of_something_else_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"analytics were saved|not what BlueprintAnalytics"):
        BlueprintAnalytics().load_state_dict(state)


def test_tables_say_n_a_for_what_is_absent() -> None:
    analytics = counted([("norm", True, 0.025), ("mine", False, -0.003)])
    rows = shown(analytics.summary_table())
    norm, mine = (next(line for line in rows.splitlines() if name in line) for name in ("norm", "mine"))
    assert "100.0%" in norm
    assert "+2.50" in norm
    assert "1.02x" in norm
    assert "-0.30" in mine
    assert mine.count("n/a") == 3  # no fossil's accuracy, no blending, no cost
    assert norm.count("n/a") == 2  # no churn, no blending
    assert "n/a of the host" in shown(analytics.scoreboard_table("0"))


def test_ends_are_logged_with_their_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nissa.analytics")
    counted([("norm", True, 0.025)])
    began, ended = caplog.records
    assert began.getMessage() == "Germinated 's0' (norm, 10 parameters)"
    assert ended.getMessage() == "Fossilized 's0' (norm, +2.50 points)"
    assert (ended.blueprint_id, ended.improvement, ended.env_id) == ("norm", 0.025, "0")  # type: ignore[attr-defined]


def test_blueprints_are_exported_up_to_the_bound() -> None:
    with nissa.start("minimal", run_id="r", limits={"max_blueprints": 2}) as run:
        for name in ("norm", "attention", "lora"):
            run.germinate(name, blueprint=name, parameters=5)
    told = {
        point.attributes["nissa.blueprint.id"]
        for point in points(Path("nissa-runs/r"))
        if point.metric == "nissa.blueprint.parameters"
    }
    assert told == {"attention", "lora"}


def test_blueprints_and_slots_beyond_the_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nissa.analytics.lives.MOST_NAMES", 2)
    monkeypatch.setattr("nissa.analytics.blueprints.MOST_NAMES", 2)
    analytics = BlueprintAnalytics()
    for number in range(4):
        name = f"s{number}"
        analytics.emit(event("SEED_GERMINATED", name, slot=f"slot{number}", blueprint_id=f"b{number}"))
        analytics.emit(event("SEED_CULLED", name, slot=f"slot{number}"))
        analytics.emit(event("SEED_GERMINATED", f"{name}-b0", slot=f"slot{number}", blueprint_id="b0"))
        analytics.emit(event("SEED_CULLED", f"{name}-b0", slot=f"slot{number}"))
    blueprints = analytics.snapshot()["blueprints"]
    assert {name: each["culled"] for name, each in blueprints.items()} == {"b0": 5, "b1": 1, "other": 2}
    assert blueprints["b0"]["culled_by_slot"] == {"slot0": 2, "slot1": 1, "other": 2}
