import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import EventType, Severity
from nissa.config import TelemetryConfig
from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.finding_events import events_of
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.rule import Judgement, Latch, Rule
from nissa.diagnostics.rulebook import RuleBook
from nissa.diagnostics.rules import RULES
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.hub.critical import CriticalSections
from nissa.hub.measurements import GradientsMeasured, StepMeasured, StepSkipped
from tests.unit.diagnostics.readings import book, judge, sample, step, validated

NAN, INF = float("nan"), float("inf")


def test_there_is_no_flag_before_it_could_be_judged() -> None:
    rules = book()
    assert rules.flags == {}
    judge(rules, step(None))
    assert rules.flags == {}
    judge(rules, step(1.0))
    assert rules.flags
    assert not any(rules.flags.values())
    assert "nonfinite_gradients" not in rules.flags
    judge(rules, sample(a=1.0))
    assert rules.flags["nonfinite_gradients"] is False
    assert "overfitting" not in rules.flags


def test_flags_stand_worst_first() -> None:
    rules = book()
    rules.epoch(validated(1.0, train_validation_gap=0.0))
    judge(rules, sample(a=1.0))
    judge(rules, step(1.0))
    order = [rule.name for rule in RULES]
    assert list(rules.flags) == sorted(rules.flags, key=order.index)


def test_a_finding_is_told_when_it_begins_and_when_it_is_over_and_stands_meanwhile() -> None:
    rules = book(recoveries=2, cooldown=0)
    (raised,) = judge(rules, step(NAN, 7))
    assert (raised.name, raised.raised, raised.step, raised.certainty) == ("nonfinite_loss", True, 7, Certainty.CERTAIN)
    assert judge(rules, step(INF, 8)) == []
    assert [(each.name, each.step, each.value) for each in rules.findings] == [("nonfinite_loss", 8, INF)]
    assert rules.flags["nonfinite_loss"]
    assert judge(rules, step(1.0, 9)) == []
    (cleared,) = judge(rules, step(1.0, 10))
    assert (cleared.name, cleared.raised, cleared.step) == ("nonfinite_loss", False, 10)
    assert (rules.findings, rules.flags["nonfinite_loss"]) == ((), False)


def test_models_are_judged_apart_and_a_flag_is_up_as_long_as_one_holds_it() -> None:
    rules = book(recoveries=1, cooldown=0)
    (first,) = judge(rules, step(NAN, model="actor"))
    (second,) = judge(rules, step(NAN, model="critic"))
    assert (first.model_name, second.model_name) == ("actor", "critic")
    (over,) = judge(rules, step(1.0, model="actor"))
    assert (over.model_name, over.raised, rules.flags["nonfinite_loss"]) == ("actor", False, True)
    assert [each.model_name for each in rules.findings] == ["critic"]


def test_a_model_that_is_no_longer_watched_holds_no_flag() -> None:
    rules = book()
    judge(rules, step(NAN, model="critic"))
    rules.forget("critic")
    assert (rules.flags, rules.findings) == ({}, ())


def test_a_validation_has_a_flag_of_its_own() -> None:
    rules = book()
    (found,) = rules.epoch(validated(NAN, epoch=4, time_unix_nano=99))
    assert (found.name, found.epoch, found.step, found.time_unix_nano) == ("nonfinite_loss", 4, None, 99)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_says_what_to_try_and_looks_at_something(rule: type[Rule]) -> None:
    assert rule.__module__ == f"nissa.diagnostics.rules.{rule.name}"
    assert rule.advice.endswith(".")
    assert any(getattr(rule, kind) is not getattr(Rule, kind) for kind in ("steps", "samples", "epoch"))


def test_the_names_of_flags_differ() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_findings_of_a_block_come_by_step_and_of_one_step_worst_first() -> None:
    losses = [2.3, 2.2, *[2.0] * 20, 90.0, *[2.0] * 3, 80.0, NAN, 2.0]
    steps = [step(loss, number) for number, loss in enumerate(losses)]
    alone, together = book(recoveries=2, cooldown=0), book(recoveries=2, cooldown=0)
    expected = [found for each in steps for found in judge(alone, each)]
    assert len({each.name for each in expected}) > 1
    assert repr(judge(together, *steps)) == repr(expected)  # where NaN is the same as NaN
    assert repr(together.findings) == repr(alone.findings)
    assert together.flags == alone.flags


def test_judgements_on_both_sides_of_what_was_lost_are_not_in_a_row() -> None:
    small: dict[str, Any] = {"a": 1e-7, "b": 1e-3, "c": 1.0}
    assert judge(book(), *[sample(number, missed=number % 2, **small) for number in range(9)]) == []
    assert judge(book(), *[sample(number, missed=9 * (number == 0), **small) for number in range(3)])


def test_its_lock_belongs_to_the_critical_sections_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    sections, inside = CriticalSections(), set()
    config = TelemetryConfig.diagnostic()
    tracker = DiagnosticTracker(config, sections)
    changes = Latch.changes

    def noted(self: Latch, judgement: Judgement) -> bool:
        inside.add(sections.inside)
        return changes(self, judgement)

    monkeypatch.setattr(Latch, "changes", noted)
    assert judge(tracker.rules, step(NAN, 3), sample(a=1.0))
    tracker.diagnose(Observations(epoch=0, validation_loss=1.0))
    assert inside == {True}
    assert not sections.inside


def test_a_watch_that_was_forgotten_begins_again() -> None:
    rules = book()
    judge(rules, *[step(2.3 - number / 100, number) for number in range(100)])
    rules.forget(None)
    assert [found.name for found in judge(rules, *[step(loss) for loss in (1.0, 40.0, 900.0, 700.0, 30.0)])] == [
        "learning_rate_too_high"
    ]


LOSS = st.one_of(st.floats(0.1, 3), st.sampled_from([NAN, INF, None, 1e4, 1e9]))
NORM = st.one_of(st.floats(0.1, 3), st.sampled_from([0.0, 1e-9, 1e4, 1e9]))
MISSED = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 5, 70])
LAYER = st.fixed_dictionaries(
    {"norm": NORM, "weight": st.sampled_from([1.0, 2.0]), "zeros": st.sampled_from([0.0, 0.5, 1.0])},
    optional={"nonfinite": st.just(0.1), "exploding": st.just(0.5)},
)
LAYERS = st.lists(st.fixed_dictionaries({"a": LAYER, "b__bias": LAYER, "c": LAYER}, optional={"d": LAYER}), max_size=40)
QUICK: dict[str, Any] = {
    "warm_up": 2,
    "window": 8,
    "confirmations": 2,
    "recoveries": 2,
    "cooldown": 1,
    "judged_after": 10,
}


def in_parts(entries: Sequence[StepMeasured | GradientsMeasured], cuts: set[int]) -> list[Finding]:
    """Return what rules find in a sequence that is cut into blocks, and what stands at the end."""
    rules, found = book(**QUICK), []
    edges = sorted({0, len(entries), *(cut % (len(entries) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        found += judge(rules, *entries[start:end])
    return [*found, *rules.findings]


@given(st.lists(st.tuples(LOSS, MISSED), max_size=60), st.sets(st.integers(0, 60)))
def test_how_steps_are_split_into_blocks_changes_nothing(
    losses: list[tuple[float | None, int]], cuts: set[int]
) -> None:
    steps = [step(loss, number, missed=missed) for number, (loss, missed) in enumerate(losses)]
    assert repr(in_parts(steps, cuts)) == repr(in_parts(steps, set(range(len(steps)))))


@given(st.lists(st.integers(0, 25), max_size=12), st.sets(st.integers(0, 60)))
def test_how_steps_and_skipped_ones_are_read_together_changes_nothing(counts: list[int], cuts: set[int]) -> None:
    entries: list[StepMeasured | StepSkipped] = []
    for number, count in enumerate(counts):
        if count:
            at = 1_000 * number + 500
            entries.append(StepSkipped(env_id=None, model_name=None, step=number, time_unix_nano=at, count=count))
        entries.append(StepMeasured(env_id=None, step=number, time_unix_nano=1_000 * (number + 1), loss=1.0))

    def judged(places: set[int]) -> tuple[list[Finding], dict[str, bool]]:
        rules, found = (
            RuleBook(TelemetryConfig.from_profile("diagnostic").diagnostics),
            list[Finding](),
        )  # with contracts
        edges = sorted({0, len(entries), *(place % (len(entries) + 1) for place in places)})
        for start, end in pairwise(edges):
            part = entries[start:end]
            steps = [each for each in part if isinstance(each, StepMeasured)]
            found += rules.judge(steps, (), [each for each in part if isinstance(each, StepSkipped)])
        return [*found, *rules.findings], rules.flags

    assert repr(judged(cuts)) == repr(judged(set(range(len(entries)))))


@given(LAYERS, st.lists(MISSED, min_size=40, max_size=40), st.sets(st.integers(0, 40)))
def test_how_samples_are_split_into_blocks_changes_nothing(
    layers: list[dict[str, Any]], missed: list[int], cuts: set[int]
) -> None:
    samples = [
        sample(number, missed=lost, idle=() if "d" in each else ("d",), **each)
        for number, (each, lost) in enumerate(zip(layers, missed, strict=False))
    ]
    assert repr(in_parts(samples, cuts)) == repr(in_parts(samples, set(range(len(samples)))))


def test_rules_keep_nothing_of_layers_that_have_left() -> None:
    """A network that grows and shrinks has other layers each time."""
    rules = book()
    sizes = []
    for number in range(1000):
        layers: dict[str, Any] = {f"{number}__{layer}": {"norm": 1.0, "weight": 1.0} for layer in "abcd"}
        judge(rules, sample(number, idle=(f"{number}.idle",), **layers))
        if number in {99, 999}:  # windows of baselines are full at the first
            sizes.append(len(pickle.dumps([each.rule.__dict__ for each in rules._models[None]["samples"]])))
    assert sizes[1] < sizes[0] + 100


DOCUMENTED = {
    "sustained_plateau",
    "vanishing_gradients",
    "exploding_gradients",
    "poor_gradient_health",
    "overfitting",
    "severe_class_imbalance",
    "sharp_minimum",
}


def test_the_flags_of_the_seed_document_keep_their_names() -> None:
    assert {rule.name for rule in RULES} >= DOCUMENTED


def finding(name: str = "vanishing_gradients", *, raised: bool = True, up: bool = False) -> Finding:
    return Finding(
        name=name,
        raised=raised,
        seen="Vanishing gradients in 7 layers",
        certainty=Certainty.LIKELY,
        advice="Use normalisation.",
        layers=tuple("abcdefg"),
        value=0.0,
        evidence=("ratio=1e-9",),
        first_step=1,
        step=3,
        time_unix_nano=12,
        model_name="critic",
        up=up,
    )


def test_a_finding_becomes_an_event_with_a_sentence_and_its_own_time() -> None:
    flag, anomaly = events_of(finding(up=True), env_id="2")
    assert (flag.event_type, flag.env_id, flag.time_unix_nano) == (EventType.RED_FLAG_RAISED, "2", 12)
    assert flag.message == "Vanishing gradients in 7 layers (likely). Use normalisation."
    assert flag.severity is Severity.WARNING
    assert flag.data == {
        "flag": "vanishing_gradients",
        "up": True,
        "certainty": "likely",
        "advice": "Use normalisation.",
        "evidence": ["Vanishing gradients in 7 layers", "ratio=1e-9"],
        "layers": list("abcdefg"),
        "layer_count": 7,
        "value": 0.0,
        "model": "critic",
        "step": 3,
        "first_step": 1,
    }
    assert anomaly.event_type == EventType.GRADIENT_ANOMALY
    assert anomaly.data == {
        "anomaly": "vanishing",
        "layers": list("abcdefg"),
        "layer_count": 7,
        "step": 3,
        "model": "critic",
    }


def test_what_is_over_is_told_without_an_anomaly() -> None:
    (event,) = events_of(finding(raised=False), env_id=None)
    assert (event.event_type, event.severity, event.data["up"]) == (EventType.RED_FLAG_CLEARED, Severity.INFO, False)


def test_what_is_not_about_gradients_is_no_anomaly() -> None:
    (event,) = events_of(finding("overfitting", up=True), env_id=None)
    assert event.event_type == EventType.RED_FLAG_RAISED


@given(
    st.lists(st.tuples(LOSS, LOSS, st.booleans()), min_size=1, max_size=40),
    st.lists(st.integers(1, 7), min_size=40, max_size=40),
)
def test_findings_of_two_watches_do_not_depend_on_how_their_steps_were_divided(
    losses: list[tuple[float | None, float | None, bool]], sizes: list[int]
) -> None:
    # Two watches whose steps alternate and often have the same time, as with a clock of low resolution.
    seen = [
        replace(step(loss, number, model=model), time_unix_nano=2 * number + (late and model == "actor"))
        for number, (of_host, of_actor, late) in enumerate(losses)
        for model, loss in (("host", of_host), ("actor", of_actor))
    ]
    together, divided = book(recoveries=1, cooldown=0), book(recoveries=1, cooldown=0)
    expected, found, start = judge(together, *seen), list[Finding](), 0
    for size in sizes:
        found += judge(divided, *seen[start : start + size])
        start += size
    found += judge(divided, *seen[start:])
    assert repr(found) == repr(expected)
    assert repr(divided.findings) == repr(together.findings)
    assert divided.flags == together.flags
