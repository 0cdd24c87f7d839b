from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import EpochSnapshot
from nissa.config.sections import DiagnosticsConfig
from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.narrative import SENTENCES, narrate
from nissa.diagnostics.opportunities import UNHEALTHY, opportunities
from nissa.diagnostics.seed_findings import SeedFinding
from nissa.events import Severity
from nissa.hub.measurements import GradientHealth
from scripts.generate import REFERENCE

INF, NAN = float("inf"), float("nan")
CONFIG = DiagnosticsConfig()
numbers = st.none() | st.floats()
layers = st.lists(st.text(), max_size=5).map(tuple)


def health(score: float | None = 0.6, **layers: Any) -> GradientHealth:
    return GradientHealth(score=score, global_norm=1.0, layers=4, **layers)


def told(config: DiagnosticsConfig = CONFIG, **fields: Any) -> str:
    return narrate(EpochSnapshot(epoch=4, **fields), config)


def test_it_has_the_form_of_the_seed_document() -> None:
    line = told(
        validation_loss=0.398,
        loss_delta=0.398 - 0.542,
        gradient_health=health(1.0),
        per_class_accuracy={"3": 0.42, "7": 0.91, "5": 0.6},
    )
    assert line == "Loss improving (0.542 -> 0.398) | Gradient health good | Class imbalance: 3=42% vs 7=91%"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "No measurements yet"),
        ({"step": 0}, "Training normally"),
        ({"train_loss": 0.5, "train_loss_delta": -0.2}, "Training loss improving (0.700 -> 0.500)"),
        ({"train_loss": 0.5, "train_loss_delta": 0.2}, "Training loss degrading (0.300 -> 0.500)"),
        ({"train_loss": 0.5, "train_loss_delta": 0.01}, "Training normally"),
        ({"train_loss": 0.5, "train_loss_delta": -0.2, "validation_loss": 0.5}, "Training normally"),
        ({"validation_loss": 0.5}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": -0.2}, "Loss improving (0.700 -> 0.500)"),
        ({"validation_loss": 0.0, "loss_delta": -0.2}, "Loss improving (0.200 -> 0.000)"),
        ({"validation_loss": 0.7, "loss_delta": 0.2}, "Loss degrading (0.500 -> 0.700)"),
        ({"validation_loss": 0.5, "loss_delta": 0.01}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": -0.011}, "Loss improving (0.511 -> 0.500)"),
        ({"validation_loss": 0.5, "loss_delta": 0.0, "plateau_length": 2}, "Training normally"),
        ({"validation_loss": 0.5, "loss_delta": 0.0, "plateau_length": 3}, "Loss plateaued for 3 epochs at ~0.500"),
        ({"train_loss": NAN}, "Loss is not finite"),
        ({"validation_loss": INF, "loss_delta": INF}, "Loss is not finite"),
        ({"validation_loss": 0.5, "loss_delta": -INF}, "Training normally"),
        ({"gradient_health": health(vanishing=("a",))}, "Vanishing gradients in 1 layer"),
        ({"gradient_health": health(vanishing=("a", "b"))}, "Vanishing gradients in 2 layers"),
        ({"gradient_health": health(exploding=("a", "b", "c"))}, "Exploding gradients in 3 layers"),
        ({"gradient_health": health(0.0, nonfinite=("a",))}, "Non-finite gradients in 1 layer"),
        ({"gradient_health": health(0.8)}, "Gradient health good"),
        ({"gradient_health": health(0.79)}, "Training normally"),
        ({"gradient_health": health(None)}, "Training normally"),
        ({"per_class_accuracy": {"a": 0.0, "b": 1.0}}, "Class imbalance: a=0% vs b=100%"),
        ({"per_class_accuracy": {"a": 0.5, "b": 0.7}}, "Training normally"),
        ({"per_class_accuracy": {"x": NAN, "a": 0.1, "b": 0.9}}, "Class imbalance: a=10% vs b=90%"),
        ({"train_validation_gap": 0.75}, "Possible overfitting (train-val gap: 0.75)"),
        ({"train_validation_gap": 0.5}, "Training normally"),
        ({"train_validation_gap": NAN}, "Training normally"),
    ],
)
def test_each_finding_has_its_sentence(fields: dict[str, Any], line: str) -> None:
    assert told(**fields) == line


def test_what_is_broken_comes_before_what_is_not() -> None:
    line = told(
        train_loss=NAN,
        validation_loss=0.5,
        loss_delta=-0.1,
        gradient_health=health(0.0, nonfinite=("a",), exploding=("b",), vanishing=("c", "d")),
        train_validation_gap=0.9,
    )
    assert line.split(" | ") == [
        "Loss is not finite",
        "Non-finite gradients in 1 layer",
        "Exploding gradients in 1 layer",
        "Vanishing gradients in 2 layers",
        "Loss improving (0.600 -> 0.500)",
        "Possible overfitting (train-val gap: 0.90)",
    ]


def test_a_plateau_is_as_long_as_the_configuration_says() -> None:
    config = DiagnosticsConfig(plateau_epochs=5)
    fields = {"validation_loss": 0.5, "loss_delta": 0.0}
    assert told(config, **fields, plateau_length=4) == "Training normally"
    assert told(config, **fields, plateau_length=5) == "Loss plateaued for 5 epochs at ~0.500"


def finding(name: str, seen: str, severity: Severity = Severity.WARNING, **fields: Any) -> Finding:
    told: dict[str, Any] = {"raised": True, "certainty": Certainty.LIKELY, "advice": "Look."} | fields
    return Finding(name=name, seen=seen, severity=severity, **told)


def test_what_rules_saw_is_told_by_severity() -> None:
    findings = (
        finding("divergence", "Loss doubled", Severity.CRITICAL),
        finding("dead_units", "2 units are dead", Severity.WARNING),
        finding("low_rate", "Updates are small", Severity.INFO),
        finding("overfitting", "told by the sentence of the document"),
    )
    fields: dict[str, Any] = {"validation_loss": 0.5, "loss_delta": -0.2, "train_validation_gap": 0.75}
    line = narrate(EpochSnapshot(epoch=1, red_flags=("overfitting",), **fields), CONFIG, findings)
    assert line.split(" | ") == [
        "Loss doubled",
        "2 units are dead",
        "Loss improving (0.700 -> 0.500)",
        "Possible overfitting (train-val gap: 0.75)",
        "Updates are small",
    ]


def test_what_a_rule_saw_is_cut_and_never_holds_the_separator() -> None:
    (line,) = [narrate(EpochSnapshot(epoch=1), CONFIG, (finding("x", f"a | b\nc {'d' * 200}"),))]
    assert line == f"a / b c {'d' * 79}..."
    assert len(line) == 90


@pytest.mark.parametrize("kind", ["vanishing", "exploding"])
def test_of_gradients_a_rule_decides_where_it_judged(kind: str) -> None:
    layers: dict[str, Any] = {kind: ("a",)}
    flag, found = f"{kind}_gradients", health(**layers)
    sentence = f"{kind.capitalize()} gradients in 1 layer"
    assert told(gradient_health=found) == sentence
    assert told(gradient_health=found, judged_flags=(flag,), red_flags=(flag,)) == sentence
    assert told(gradient_health=found, judged_flags=(flag,)) == "Training normally"


@pytest.mark.parametrize(
    ("flag", "fields", "sentence"),
    [
        ("overfitting", {"train_validation_gap": 0.4}, "Possible overfitting (train-val gap: 0.40)"),
        ("severe_class_imbalance", {"per_class_accuracy": {"a": 0.5, "b": 0.6}}, "Class imbalance: a=50% vs b=60%"),
        (
            "sustained_plateau",
            {"validation_loss": 0.5, "loss_delta": 0.0, "plateau_length": 2},
            "Loss plateaued for 2 epochs at ~0.500",
        ),
    ],
    ids=["overfitting", "classes", "plateau"],
)
def test_what_a_rule_still_holds_is_still_told(flag: str, fields: dict[str, Any], sentence: str) -> None:
    assert told(**fields, judged_flags=(flag,), red_flags=(flag,)) == sentence
    assert told(**fields, judged_flags=(flag,)) == "Training normally"


def test_a_number_that_is_none_is_told_whatever_was_judged() -> None:
    judged: dict[str, Any] = {"judged_flags": ("nonfinite_loss", "nonfinite_gradients")}
    assert told(train_loss=NAN, **judged) == "Loss is not finite"
    assert told(gradient_health=health(0.0, nonfinite=("a",)), **judged) == "Non-finite gradients in 1 layer"


def test_a_rule_that_judges_by_a_baseline_names_its_own_layers() -> None:
    flags = {"judged_flags": ("vanishing_gradients",), "red_flags": ("vanishing_gradients",)}
    seen = finding("vanishing_gradients", "fell", layers=("a", "b", "c"))
    line = narrate(EpochSnapshot(epoch=1, **flags), CONFIG, (seen,))  # type: ignore[arg-type]  # one dictionary for both
    assert line == "Vanishing gradients in 3 layers"


def test_poor_health_is_told_where_nothing_says_why() -> None:
    flags: dict[str, Any] = {"red_flags": ("poor_gradient_health",), "judged_flags": ("poor_gradient_health",)}
    assert told(gradient_health=health(0.4), **flags) == "Gradient health poor (0.40)"
    assert told(gradient_health=health(0.4, exploding=("a",)), **flags) == "Exploding gradients in 1 layer"


def seeds(*sentences: str) -> tuple[SeedFinding, ...]:
    return tuple(SeedFinding(seed_id="s", stage="blending", sentence=each) for each in sentences)


def test_seeds_come_last_and_are_few() -> None:
    line = told(
        gradient_health=health(0.9), seeds=seeds("a culled", "b blended to 0.5", "c germinated", "d germinated")
    )
    assert line == "Gradient health good | a culled | b blended to 0.5 | +2 more seeds"


def test_long_names_of_classes_are_cut() -> None:
    classes = {"n" * 200: 0.1, "m|" * 200: 0.9}
    assert told(per_class_accuracy=classes) == f"Class imbalance: {'n' * 21}...=10% vs {'m/' * 10}m...=90%"


def test_a_sentence_that_does_not_fit_is_left_out_whole_and_counted() -> None:
    findings = tuple(finding(f"flag{i}", f"{i}" * 90) for i in range(5))
    fields: dict[str, Any] = {"validation_loss": 0.5, "loss_delta": -0.2}
    line = narrate(EpochSnapshot(epoch=1, **fields), CONFIG, findings)
    assert line == f"{'0' * 90} | {'1' * 90} | Loss improving (0.700 -> 0.500) | +3 more"


def test_what_just_fits_is_told() -> None:
    findings = tuple(finding(f"flag{i}", str(i) * length) for i, length in enumerate((90, 90, 90)))
    longest = narrate(EpochSnapshot(epoch=1), CONFIG, (*findings[:2], finding("last", "x" * 90)))
    assert len(longest) == 276
    assert narrate(EpochSnapshot(epoch=1), CONFIG, (*findings, finding("y", "y"))).count("|") == 3


def test_the_reference_lists_every_sentence_in_its_order() -> None:
    page = (REFERENCE / "narrative.md").read_text()
    places = [page.index(f"| `{sentence.template}` |") for sentence in SENTENCES.values()]
    assert places == sorted(places)


@given(
    loss=numbers,
    delta=numbers,
    score=st.none() | st.floats(0, 1),
    found=st.tuples(layers, layers, layers),
    classes=st.dictionaries(st.text(max_size=300), st.floats(), max_size=4),
    gap=numbers,
    plateau=st.integers(0, 10**6),
    seen=st.lists(st.text(max_size=300), max_size=12),
    of_seeds=st.lists(st.text(max_size=140), max_size=4),
)
def test_there_is_always_one_line_of_at_most_280_characters(  # noqa: PLR0913 - all that a narrative is made of
    *,
    loss: float | None,
    delta: float | None,
    score: float | None,
    found: tuple[tuple[str, ...], ...],
    classes: dict[str, float],
    gap: float | None,
    plateau: int,
    seen: list[str],
    of_seeds: list[str],
) -> None:
    vanishing, exploding, nonfinite = found
    snapshot = EpochSnapshot(
        epoch=1,
        validation_loss=loss,
        loss_delta=delta,
        gradient_health=health(score, vanishing=vanishing, exploding=exploding, nonfinite=nonfinite),
        per_class_accuracy=classes,
        train_validation_gap=gap,
        plateau_length=plateau,
        seeds=seeds(*of_seeds),
    )
    line = narrate(snapshot, CONFIG, [finding(f"rule{i}", text) for i, text in enumerate(seen)])
    assert 0 < len(line) <= 280


def test_a_finding_about_the_whole_model_names_no_layers() -> None:
    seen = finding("exploding_gradients", "Gradient norm 4e+04 is far above 1e+03")
    flags: dict[str, Any] = {"red_flags": ("exploding_gradients",), "judged_flags": ("exploding_gradients",)}
    line = narrate(EpochSnapshot(epoch=1, **flags), CONFIG, (seen,))
    assert line == "Gradient norm 4e+04 is far above 1e+03"
    assert narrate(EpochSnapshot(epoch=1, **flags), CONFIG) == "Exploding gradients"


@pytest.mark.parametrize("flag", sorted(UNHEALTHY))
def test_health_is_not_good_while_a_flag_contradicts_it(flag: str) -> None:
    good = EpochSnapshot(epoch=1, gradient_health=health(1.0))
    assert narrate(good, CONFIG) == "Gradient health good"
    assert opportunities(good, []) == ("healthy_gradients",)
    bad = replace(good, red_flags=(flag,), judged_flags=(flag,))
    assert "health good" not in narrate(bad, CONFIG, (finding(flag, "Seen"),))
    assert opportunities(bad, []) == ()


@pytest.mark.parametrize("loss", [float("nan"), 1e14])
def test_health_is_not_good_while_the_loss_has_diverged(loss: float) -> None:
    line = narrate(EpochSnapshot(epoch=1, gradient_health=health(1.0), train_loss=loss, first_train_loss=2.3), CONFIG)
    assert "health good" not in line
    assert line in {"Loss is not finite", "Training loss far above its start (2.300 -> 1e+14)"}
