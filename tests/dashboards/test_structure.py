"""What a board must have for Grafana to show it, and for people to read it."""

import json
import re
from itertools import combinations
from typing import Any

import yaml

from dashboards.board import WIDTH, every_panel
from dashboards.build import FOLDERS, files
from dashboards.promql import VARIABLES
from scripts.stack_docker import FILE
from scripts.stack_settings import ROOT
from tests.cases import for_each
from tests.dashboards.reading import BOARDS, BUILT_IN, Json, panels

PROVISIONING = ROOT / "dashboards" / "provisioning"
EACH = for_each("board", BOARDS.values(), ids=lambda board: board["title"])


def test_the_files_are_what_the_code_renders_and_nothing_else_is_there() -> None:
    rendered = files()
    assert {path: path.read_text() for path in rendered} == rendered
    assert {path for folder, pattern in FOLDERS for path in folder.glob(pattern)} == rendered.keys()


def test_compose_mounts_the_folders_from_which_grafana_and_prometheus_read() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "stack.yaml").read_text())["providers"]
    assert f"./dashboards/generated:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    assert "./dashboards/rules:/etc/nissa/dashboards/rules:ro" in services["prometheus"]["volumes"]


def test_boards_have_addresses_of_their_own() -> None:
    assert {board["uid"] for board in BOARDS.values()} == BOARDS.keys()
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS) == 5


@EACH
def test_panels_have_ids_of_their_own_and_do_not_overlap(board: Json) -> None:
    placed = [*every_panel(board)]
    assert len({panel["id"] for panel in placed}) == len(placed)
    for panel in placed:
        at = panel["gridPos"]
        assert at["x"] >= 0, panel["title"]
        assert at["x"] + at["w"] <= WIDTH, panel["title"]
    for one, other in combinations(board["panels"], 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


@EACH
def test_a_collapsed_row_is_the_last_one_and_has_its_panels_inside(board: Json) -> None:
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    assert all(bool(row["panels"]) is row["collapsed"] for row in rows)
    assert not any(row["collapsed"] for row in rows[:-1])


def test_the_overview_has_the_order_of_the_report() -> None:
    rows = [panel["title"] for panel in BOARDS["nissa-overview"]["panels"] if panel["type"] == "row"]
    assert rows == [
        "Now",
        "Findings",
        "Learning",
        "Speed",
        "Optimizer",
        "Run",
        "Health and cost",
        "Ranks",
        "Narrative",
        "Seeds",
    ]
    titles = [panel["title"] for panel in panels(BOARDS["nissa-overview"])]
    order = ["Loss", "Logged values", "Throughput", "Step phases", "Clip norm", "Clip factor", "Learning rate", "Runs"]
    assert [title for title in titles if title in order] == order
    assert titles.index("Memory of the process") < titles.index("Memory of the device") < titles.index("Seeds by stage")


def _overlap(one: Json, other: Json) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not beside and not above


@EACH
def test_a_line_of_panels_fills_the_width(board: Json) -> None:
    lines: dict[int, int] = {}
    for panel in every_panel(board):
        lines[panel["gridPos"]["y"]] = lines.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(lines.values()) == {WIDTH}


@EACH
def test_a_panel_says_what_it_shows_in_which_unit_and_why_it_may_be_empty(board: Json) -> None:
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"]
        assert len(panel["description"]) >= 10, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert len(defaults["noValue"]) >= 8, panel["title"]
        assert defaults["thresholds"]["steps"][0]["value"] is None, panel["title"]
        steps = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
        assert steps == sorted(steps), panel["title"]


@EACH
def test_a_panel_with_a_background_or_bars_of_shares_has_thresholds(board: Json) -> None:
    for panel in panels(board):
        if panel["options"].get("colorMode") == "background":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1, panel["title"]


@EACH
def test_every_data_source_is_provisioned(board: Json) -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "stack.yaml").read_text())["datasources"]
    known = {(each["type"], each["uid"]) for each in sources}
    used = {(each["type"], each["uid"]) for each in _named(board, "datasource")}
    assert used
    assert used <= known


def _named(node: Any, key: str) -> list[Any]:
    if isinstance(node, dict):
        found = [node[key]] if key in node else []
        return found + [each for value in node.values() for each in _named(value, key)]
    return [each for item in node for each in _named(item, key)] if isinstance(node, list) else []


@EACH
def test_every_variable_that_is_used_is_defined_and_the_other_way_round(board: Json) -> None:
    defined = [variable["name"] for variable in board["templating"]["list"]]
    asked = json.dumps([board["panels"], board["annotations"], board["templating"]])
    used = set(re.findall(r"\$\{?([a-z]\w*)", asked))
    assert used == set(defined)
    assert set(re.findall(r"\$(__\w+)", json.dumps(_named(board["panels"], "expr")))) <= BUILT_IN.keys()
    for place, variable in enumerate(board["templating"]["list"]):
        before = set(re.findall(r"\$(\w+)", json.dumps(variable["query"])))
        assert before <= set(defined[:place]), variable["name"]


def test_there_is_a_variable_for_each_thing_to_choose() -> None:
    defined = {variable["name"] for board in BOARDS.values() for variable in board["templating"]["list"]}
    assert defined == {*VARIABLES.values(), "distribution", "trace"}


@EACH
def test_a_variable_that_may_be_all_matches_what_has_no_such_label(board: Json) -> None:
    for variable in board["templating"]["list"]:
        if variable.get("includeAll"):
            assert variable["allValue"] == ("^$" if variable["name"] == "distribution" else ".*")
            assert f'=~"${variable["name"]}"' in json.dumps(board).replace('\\"', '"')


@EACH
def test_changes_of_stages_are_marked(board: Json) -> None:
    (annotation,) = board["annotations"]["list"]
    assert annotation["enable"]
    assert "nissa_seed_transitions_total" in annotation["target"]["expr"]


def test_exemplars_are_asked_for_where_there_are_some() -> None:
    with_exemplars = {
        expression
        for board in BOARDS.values()
        for panel in panels(board)
        for expression in (each["expr"] for each in panel["targets"] if each.get("exemplar"))
    }
    for series in ("nissa_step_duration_seconds_bucket", "nissa_gradient_magnitude", "traces_span_metrics_duration"):
        assert any(series in expression for expression in with_exemplars), series


def test_the_guide_names_panels_that_exist() -> None:
    page = (ROOT / "docs" / "how-to" / "boards.md").read_text()
    titles = {board["title"].removeprefix("Nissa: "): {p["title"] for p in panels(board)} for board in BOARDS.values()}
    rows = re.findall(r"^\| [^|]+\? \| ([^|]+): ([^|]+) \|", page, flags=re.MULTILINE)
    assert len(rows) > 20
    for board, named in rows:
        assert {each.strip() for each in re.split(r", (?=[A-Z])", named)} <= titles[board], named


def test_a_table_s_columns_are_labels_of_its_queries_or_their_values() -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            if "transformations" in panel:
                merge, keep, organise = panel["transformations"]
                columns = keep["options"]["include"]["names"]
                values = [f"Value #{target['refId']}" for target in panel["targets"]]
                values = ["Value"] if len(values) == 1 else values
                assert merge["id"] == "merge"
                assert set(organise["options"]["renameByName"]) == set(columns)
                asked = " ".join(target["expr"] for target in panel["targets"]) + " alertname alertstate severity"
                for column in columns:
                    assert column in values or re.search(rf"\b{column}\b", asked) or "ALERTS" in asked, column
                assert set(values) <= set(columns) or "ALERTS" in asked


@EACH
def test_a_link_that_stays_on_its_board_gives_each_variable_one_value(board: Json) -> None:
    defined = {variable["name"] for variable in board["templating"]["list"]}
    for panel in panels(board):
        for link in panel["fieldConfig"]["defaults"]["links"]:
            if link["url"].startswith("/d/"):
                given = re.findall(r"\$\{(\w+):queryparam\}|&var-(\w+)=", link["url"])
                names = [kept or filled for kept, filled in given]
                assert len(names) == len(set(names)), panel["title"]
                assert set(names) <= defined
