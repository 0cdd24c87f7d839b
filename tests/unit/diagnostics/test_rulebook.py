import pytest

from nissa import EventType, Severity
from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.rule import Rule
from nissa.diagnostics.rules import RULES
from nissa.diagnostics.telling import events_of
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


def finding(name: str = "vanishing_gradients", *, raised: bool = True) -> Finding:
    return Finding(
        name=name,
        raised=raised,
        seen="Vanishing gradients in 7 layers",
        certainty=Certainty.LIKELY,
        advice="Use normalisation.",
        layers=tuple("abcdefg"),
        value=0.0,
        step=3,
        time_unix_nano=12,
        model_name="critic",
    )


def test_a_finding_becomes_an_event_with_a_sentence_and_its_own_time() -> None:
    flag, anomaly = events_of(finding(), env_id="2", up=True)
    assert (flag.event_type, flag.env_id, flag.time_unix_nano) == (EventType.RED_FLAG_RAISED, "2", 12)
    assert flag.message == "Vanishing gradients in 7 layers (likely). Use normalisation."
    assert flag.severity is Severity.WARNING
    assert flag.data == {
        "flag": "vanishing_gradients",
        "up": True,
        "certainty": "likely",
        "advice": "Use normalisation.",
        "layers": list("abcde"),
        "layer_count": 7,
        "value": 0.0,
        "model": "critic",
        "step": 3,
    }
    assert anomaly.event_type == EventType.GRADIENT_ANOMALY
    assert anomaly.data == {
        "anomaly": "vanishing",
        "layers": list("abcde"),
        "layer_count": 7,
        "step": 3,
        "model": "critic",
    }


def test_what_is_over_is_told_without_an_anomaly() -> None:
    (event,) = events_of(finding(raised=False), env_id=None, up=False)
    assert (event.event_type, event.severity, event.data["up"]) == (EventType.RED_FLAG_CLEARED, Severity.INFO, False)


def test_what_is_not_about_gradients_is_no_anomaly() -> None:
    (event,) = events_of(finding("overfitting"), env_id=None, up=True)
    assert event.event_type == EventType.RED_FLAG_RAISED
