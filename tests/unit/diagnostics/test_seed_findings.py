"""What is said of seeds, from one validation to the next."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nissa import Stage
from nissa.diagnostics.seed_findings import SeedFinding, SeedReporter, figure, short
from nissa.events import SeedSnapshot, SpanIds

GROWTH = (Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY, Stage.FOSSILIZED)


def seed(number: int = 3, *, stage: Stage = Stage.BLENDING, since: int = 0, **fields: Any) -> SeedSnapshot:
    told: dict[str, Any] = {
        "seed_id": f"seed-{number}",
        "env_id": None,
        "slot_id": f"slot-{number}",
        "blueprint_id": "attention",
        "parameters": 4,
        "ids": SpanIds(1, number),
        "first_root": number,
        "attempt": 0,
        "previous": None,
        "germinated_at": 0,
        "epochs_total": 1,
        "epochs_in_stage": 1,
        "alpha": None,
        "improvement": None,
        "isolation_violations": 0,
    }
    return SeedSnapshot(stage=stage, stage_since=since, **told | fields)


class Telling:
    """Validations of one environment."""

    def __init__(self) -> None:
        self.reporter = SeedReporter()

    def validation(self, *seeds: SeedSnapshot, ratios: Mapping[str, float] | None = None) -> list[SeedFinding]:
        return list(self.reporter.findings(seeds, ratios or {}))

    def sentences(self, *seeds: SeedSnapshot, **told: Any) -> list[str]:
        return [each.sentence for each in self.validation(*seeds, **told)]


def test_it_has_the_words_of_the_document() -> None:
    telling = Telling()
    telling.validation(seed(stage=Stage.TRAINING))
    (told,) = telling.validation(
        seed(alpha=0.6, previous=Stage.TRAINING, accuracy_delta=0.012), ratios={"slot-3": 0.11}
    )
    assert told == SeedFinding(
        seed_id="seed-3",
        stage="blending",
        blueprint="attention",
        slot="slot-3",
        previous="training",
        alpha=0.6,
        accuracy_delta=0.012,
        gradient_ratio=0.11,
        sentence="seed-3 (attention) blended to 0.6, +1.2 points, gradient ratio 0.11",
    )


def test_a_life_is_told_stage_by_stage_and_once_each() -> None:
    telling, found = Telling(), []
    for stage in GROWTH:
        now = seed(stage=stage, alpha=0.5)
        found += [telling.sentences(now), telling.sentences(now)]
    assert found == [
        ["seed-3 (attention) germinated"],
        [],
        ["seed-3 (attention) in training"],
        [],
        ["seed-3 (attention) blended to 0.5"],
        [],
        ["seed-3 (attention) on probation"],
        [],
        ["seed-3 (attention) fossilized"],
        [],
    ]


def test_an_alpha_that_moves_is_told_while_the_seed_blends() -> None:
    telling = Telling()
    found = [telling.sentences(seed(alpha=alpha)) for alpha in (None, 0.25, 0.25, 0.5)]
    assert found == [
        ["seed-3 (attention) blending"],
        ["seed-3 (attention) blended to 0.25"],
        [],
        ["seed-3 (attention) blended to 0.5"],
    ]
    telling.validation(seed(stage=Stage.PROBATIONARY, alpha=0.5))
    assert telling.sentences(seed(stage=Stage.PROBATIONARY, alpha=1.0)) == []


def test_how_a_life_ended_is_told_with_what_its_end_was_told_with() -> None:
    telling = Telling()
    telling.validation(seed())
    told = telling.sentences(seed(stage=Stage.CULLED, improvement=-0.003, accuracy_delta=0.4))
    assert told == ["seed-3 (attention) culled, -0.3 points"]


def test_a_gradient_ratio_is_only_told_of_a_seed_that_grows() -> None:
    telling = Telling()
    assert telling.sentences(seed(stage=Stage.FOSSILIZED), ratios={"slot-3": 0.5}) == ["seed-3 (attention) fossilized"]


def test_the_most_important_comes_first() -> None:
    stages = [Stage.TRAINING, Stage.CULLED, Stage.GERMINATED, Stage.FOSSILIZED, Stage.BLENDING, Stage.EMBARGOED]
    found = Telling().validation(*(seed(number, stage=stage) for number, stage in enumerate(stages)))
    assert [each.stage for each in found] == ["culled", "fossilized", "blending", "training", "germinated"]


def test_a_later_life_of_the_same_name_is_another_seed() -> None:
    telling = Telling()
    telling.validation(seed(3, stage=Stage.TRAINING))
    assert telling.sentences(seed(4, stage=Stage.TRAINING, seed_id="seed-3")) == ["seed-3 (attention) in training"]


@given(name=st.text(max_size=300), blueprint=st.none() | st.text(max_size=300), number=st.floats())
def test_a_sentence_is_short_and_on_one_line(name: str, blueprint: str | None, number: float) -> None:
    (found,) = Telling().validation(
        seed(seed_id=name, blueprint_id=blueprint, alpha=number, improvement=number), ratios={"slot-3": number}
    )
    assert len(found.sentence) < 150
    assert "|" not in found.sentence
    assert len(found.sentence.splitlines()) == 1


def test_a_number_that_would_be_long_is_told_in_powers_of_ten() -> None:
    assert [figure(0.3984), figure(-1e300), figure(1e6), figure(float("inf"))] == ["0.398", "-1e+300", "1e+06", "inf"]


def test_text_is_cut_where_it_is_long() -> None:
    assert short("a|b\nc", 10) == "a/b c"
    assert short("abcdefghijk", 10) == "abcdefg..."


def test_seeds_that_have_ended_are_not_remembered() -> None:
    telling = Telling()
    for number in range(50):
        telling.validation(seed(1), seed(number + 2, stage=Stage.CULLED))
    assert len(telling.reporter._reported) == 2
