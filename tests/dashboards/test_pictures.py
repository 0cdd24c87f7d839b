"""Pictures of boards: what servers answer, as panels."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dashboards.board import every_panel
from dashboards.build import GENERATED
from scripts.pictures import numbers
from scripts.pictures.__main__ import IMAGES
from scripts.pictures.answers import Moment
from scripts.pictures.page import MARK, page
from scripts.pictures.panels import draw
from scripts.stack_settings import ROOT
from tests.cases import for_each

Json = dict[str, Any]
PANELS = [
    panel
    for path in sorted(GENERATED.glob("*.json"))
    for panel in every_panel(json.loads(path.read_text()))
    if panel["type"] != "row"
]


@dataclass(frozen=True)
class Told(Moment):
    """A moment whose answers are known."""

    answers: Mapping[str, list[Json]] = field(default_factory=dict)

    def ask(self, target: Json) -> list[Json]:
        return self.answers.get(target["refId"], [])

    def search(self, target: Json) -> list[list[Json]]:
        return [[each | {"operationName": target["operation"]} for each in self.answers.get("traces", [])]][
            : len(self.answers)
        ]


def told(**answers: list[Json]) -> Told:
    return Told("", "", "service", "run-1", 0.0, 60.0, answers)


def line(*values: str, **labels: str) -> Json:
    return {"metric": labels, "values": [[10.0 * at, value] for at, value in enumerate(values)]}


def panel_of(kind: str) -> Json:
    found: Json = next(panel for panel in PANELS if panel["type"] == kind)
    return found


@for_each("panel", PANELS, ids=lambda panel: f"{panel['title']}-{panel['id']}")
def test_a_panel_without_an_answer_says_in_its_own_words_why(panel: Json) -> None:
    drawn = draw(panel, told())
    assert isinstance(drawn, str)
    assert "empty" in drawn


def test_lines_keep_the_values_that_prometheus_answers() -> None:
    panel = next(each for each in PANELS if each["title"] == "Accuracy")
    figure = draw(panel, told(A=[line("0.5", "NaN", "0.75", nissa_phase="train", nissa_env_id="0")]))
    assert not isinstance(figure, str)
    (trace,) = figure.data[:1]
    assert (float(trace.y[0]), float(trace.y[2])) == (0.5, 0.75)
    assert trace.name.startswith("train")


def test_a_number_has_the_colour_of_its_threshold() -> None:
    panel = next(each for each in PANELS if each["title"] == "Gradient health" and each["type"] == "stat")
    assert numbers.COLOURS["red"] in draw(panel, told(A=[line("0.2")]))
    assert numbers.COLOURS["green"] in draw(panel, told(A=[line("0.9")]))


def test_a_table_has_a_row_for_each_set_of_labels_and_joins_its_queries() -> None:
    panel = next(each for each in PANELS if each["title"] == "Layers")
    sample = {"metric": {"nissa_parameter_name": "a<b"}, "value": [0, "0.5"]}
    drawn = draw(panel, told(A=[sample], B=[sample | {"value": [0, "0.25"]}]))
    assert drawn.count("a&lt;b") == 1
    assert "50.0%" in drawn
    assert "25.0%" in drawn


def test_buckets_that_are_counted_up_are_taken_apart() -> None:
    panel = next(each for each in PANELS if each["title"] == "Lifespans")
    drawn = draw(panel, told(A=[line("3", le="8"), line("10", le="+Inf"), line("3", le="12")]))
    assert "up to 8" in drawn
    assert "up to 12" not in drawn  # nobody ended between 8 and 12
    assert ">7<" in drawn


def test_a_native_histogram_is_drawn_as_shares() -> None:
    buckets = [[0, "1", "2", "30"], [0, "2", "4", "10"]]
    answer = {"metric": {}, "histograms": [[10, {"count": "40", "sum": "0", "buckets": buckets}]] * 2}
    figure = draw(panel_of("heatmap"), told(A=[answer]))
    assert not isinstance(figure, str)
    assert [float(row[0]) for row in figure.data[0].z] == [0.75, 0.25]


def test_a_state_has_its_stretch_of_time() -> None:
    drawn = draw(panel_of("state-timeline"), told(A=[line("0", "1", "1", nissa_red_flag_name="loss_spike")]))
    assert "loss_spike" in drawn
    assert f"left:50.00%;width:50.00%;background:{numbers.COLOURS['red']}" in drawn


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "percentunit", "12.3%"),
        (0.0042, "s", "4.2 ms"),
        (90.0, "s", "1.5 min"),
        (0.00012, "sci", "1.20e-04"),
        (1440.0, "short", "1.44 k"),
        (3.0, "cps", "3/s"),
        (float("nan"), "none", "—"),
    ],
)
def test_numbers_have_their_units(value: float, unit: str, text: str) -> None:
    assert numbers.shown(value, unit) == text


def test_variables_are_filled_in_and_what_is_not_chosen_is_all() -> None:
    assert told().filled('a{s="$service",r=~"$run",x=~"$rank"}[$__range]') == 'a{s="service",r=~"run-1",x=~".*"}[60s]'


def test_a_page_says_that_it_is_not_grafana() -> None:
    board = json.loads(next(iter(sorted(GENERATED.glob("*.json")))).read_text())
    assert MARK.replace("'", "&#x27;") in page(board, told())


@for_each("path", sorted(GENERATED.glob("*.json")))
def test_the_document_shows_each_board_and_says_that_it_is_not_grafana(path: Path) -> None:
    name = f"board-{path.stem.removeprefix('nissa-')}.png"
    document = (ROOT / "docs" / "how-to" / "boards.md").read_text(encoding="utf-8")
    assert re.search(rf"!\[[^]]*not by Grafana\]\(\.\./images/{name}\)", document)
    assert (IMAGES / name).stat().st_size > 10_000
