"""What the generated files ask Prometheus, with the variables filled in as Grafana would."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dashboards.board import every_panel
from dashboards.build import GENERATED, RULES

Json = dict[str, Any]

BOARDS: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}
RULE_FILES: dict[str, Json] = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))}

ALL = {
    variable["name"]: variable["allValue"]
    for board in BOARDS.values()
    for variable in board["templating"]["list"]
    if variable.get("includeAll")
}
"""What variables stand for while nothing is chosen."""

BUILT_IN = {"__rate_interval": "2m", "__interval": "15s", "__range": "1h"}
"""Variables that Grafana computes from the time range and the width of a panel."""


@dataclass(frozen=True)
class Asked:
    """A query.

    Args:
        where: Board, row, panel and letter; board and annotation; or a rule's name.
        expression: PromQL with variables in it.
        instant: Whether it asks for one time.
    """

    where: str
    expression: str
    instant: bool

    def filled(self, chosen: Mapping[str, str]) -> str:
        """Return the expression with variables filled in; what is not chosen is all."""
        values = {**BUILT_IN, **ALL, **chosen}
        return re.sub(r"\$([a-z_]\w*)", lambda found: values[found[1]], self.expression)


def panels(board: Json) -> list[Json]:
    return [panel for panel in every_panel(board) if panel["type"] != "row"]


def targets(kind: str) -> Iterator[tuple[str, Json]]:
    """Yield board, row, panel and letter of the queries of a kind of data source, with the query."""
    for name, board in BOARDS.items():
        row = ""
        for panel in every_panel(board):
            row = panel["title"] if panel["type"] == "row" else row
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == kind:
                    yield f"{name} / {row} / {panel['title']} {target['refId']}", target


def of_panels() -> Iterator[Asked]:
    yield from (Asked(where, target["expr"], target["instant"]) for where, target in targets("prometheus"))


def of_annotations() -> Iterator[Asked]:
    for name, board in BOARDS.items():
        for each in board["annotations"]["list"]:
            yield Asked(f"{name} / {each['name']}", each["target"]["expr"], instant=False)


def of_variables() -> Iterator[tuple[str, str, str]]:
    """Yield board and variable, the selector that has its values, and the label."""
    for name, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                assert found is not None, variable["query"]
                yield f"{name} / ${variable['name']}", found[1], found[2]


def rules(kind: str) -> Iterator[Asked]:
    """Yield rules: those that have a ``record`` or an ``alert``."""
    for content in RULE_FILES.values():
        for group in content["groups"]:
            yield from (Asked(rule[kind], rule["expr"], instant=True) for rule in group["rules"] if kind in rule)
