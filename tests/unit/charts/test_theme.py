"""Legible, light and dark: the contrast that WCAG 2 asks for at level AA."""

from itertools import product

import pytest

from nissa.charts.theme import BAR_TEXT, DARK, FAILED, LIGHT, PASSED, SERIES, STAGES, Scheme, contrast
from nissa.events import Stage
from tests.cases import for_each

TEXT, GRAPHICS = 4.5, 3.0
SCHEMES = [LIGHT, DARK]
COLOURS = [*SERIES, PASSED, FAILED, *(style.colour for style in STAGES.values())]


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#ffffff", "#777777") == contrast("#777777", "#ffffff")


@for_each("scheme, role", product(SCHEMES, ["ink", "muted", "accent", "good", "warning", "bad"]))
def test_text_is_legible_wherever_it_stands(scheme: Scheme, role: str) -> None:
    for behind in (scheme.page, scheme.card, scheme.plot):
        assert contrast(getattr(scheme, role), behind) >= TEXT


@for_each("scheme", SCHEMES)
def test_a_button_that_is_pressed_is_legible(scheme: Scheme) -> None:
    assert contrast(scheme.card, scheme.accent) >= TEXT


@for_each("scheme, colour", product(SCHEMES, COLOURS))
def test_lines_bars_and_marks_stand_out(scheme: Scheme, colour: str) -> None:
    for behind in (scheme.card, scheme.plot):
        assert contrast(colour, behind) >= GRAPHICS


@for_each("stage", STAGES)
def test_the_name_on_a_bar_is_legible(stage: Stage) -> None:
    assert contrast(BAR_TEXT, STAGES[stage].colour) >= TEXT


def test_every_stage_has_a_look_and_those_that_follow_each_other_differ_in_more_than_colour() -> None:
    assert set(STAGES) == set(Stage)
    order = [Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.PROBATIONARY, Stage.FOSSILIZED]
    assert len({STAGES[stage].pattern for stage in order}) == len(order)
