"""Each metric and label that boards and rules name exists, and each metric that exists is on a board or in a rule."""

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

import pytest

from dashboards import recording
from dashboards.promql import carried, series
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, prometheus
from tests.cases import for_each
from tests.dashboards.names import ATTRIBUTES, metric_labels, named, of_pipeline
from tests.dashboards.reading import BOARDS, Asked, of_annotations, of_panels, of_variables, panels, rules
from tests.stack.matrix import ROWS

RECORDED = {rule.name: {prometheus.label(key) for key in rule.keys} for rule in recording.ALL}
SERIES = metric_labels() | RECORDED
LABELS = set().union(*SERIES.values()) | {"__name__"}
ASKED = [*of_panels(), *of_annotations(), *rules("record"), *rules("alert")]


@for_each("asked", ASKED, ids=lambda asked: asked.where)
def test_every_metric_and_label_of_a_query_exists(asked: Asked) -> None:
    metrics_named, labels = named(asked.expression)
    assert metrics_named or "__name__" in labels
    assert metrics_named <= SERIES.keys()
    assert labels <= LABELS
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", asked.expression):
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", inside)) <= SERIES[name], name


@for_each("where, selector, label", of_variables())
def test_a_variable_has_the_values_of_a_label_that_its_metric_carries(where: str, selector: str, label: str) -> None:
    (name,), labels = named(selector)
    assert {label, *labels} <= SERIES[name], where


def test_a_mistake_in_a_query_is_found() -> None:
    assert named('sum by (a, b) (rate(x_total{c="y", d=~"z.+"}[5m] offset 1m)) > 0 and on (e) absent(w) or s * 2') == (
        {"x_total", "w", "s"},
        {"a", "b", "c", "d", "e"},
    )
    with pytest.raises(ValueError, match=r"nissa_step does not carry nissa\.blueprint\.id"):
        series(metrics.STEP, {attr.BLUEPRINT_ID: "conv"})


def families(spec: metrics.MetricSpec) -> set[str]:
    """Return the names of a metric's series; one that begins with the name of another metric is not among them."""
    name = prometheus.series(spec)
    return {f"{name}_{part}" for part in ("bucket", "count", "sum")} if spec.kind is metrics.Kind.HISTOGRAM else {name}


def without_a_panel(asked: Iterable[Asked]) -> set[str]:
    """Return the metrics that no query reads, itself or through a recording rule."""
    read = set().union(*(named(each.expression)[0] for each in asked))
    for each in rules("record"):
        if each.where in read:
            read |= named(each.expression)[0]
    return {spec.name for spec in metrics.ALL if not families(spec) & read}


def test_every_metric_has_a_panel() -> None:
    assert without_a_panel(of_panels()) == set()


@for_each("spec", metrics.ALL, ids=lambda spec: spec.name)
def test_a_metric_whose_panels_are_taken_away_is_missed(spec: metrics.MetricSpec) -> None:
    kept = [each for each in of_panels() if not _reads(each, spec)]
    assert spec.name in without_a_panel(kept)
    assert len(kept) < len([*of_panels()])


def _reads(asked: Asked, spec: metrics.MetricSpec) -> bool:
    read = named(asked.expression)[0]
    recorded = {each.where for each in rules("record") if named(each.expression)[0] & families(spec)}
    return bool(read & (families(spec) | recorded))


def test_what_the_pipeline_adds_and_rules_record_is_read() -> None:
    read = set().union(*(named(asked.expression)[0] for asked in ASKED))
    assert {each.name for each in of_pipeline()} <= read
    assert RECORDED.keys() <= read


@for_each("spec", metrics.ALL, ids=lambda spec: spec.name)
def test_a_metric_is_selected_by_what_is_seen_on_it(spec: metrics.MetricSpec) -> None:
    (row,) = [row for row in ROWS if (row.what, row.name) == ("metric", spec.name)]
    shared = {attr.ENV_ID, attr.MODEL_NAME}
    assert set(carried(spec)) & shared == set(row.attributes.split()) & shared


@for_each("name", BOARDS)
def test_legends_and_links_name_labels_that_the_series_of_their_panel_have(name: str) -> None:
    for panel in panels(BOARDS[name]):
        left = [_left(each["expr"]) for each in panel["targets"] if "expr" in each]
        links = json.dumps(panel["fieldConfig"]["defaults"]["links"])
        assert set(re.findall(r"__field\.labels\.(\w+)", links)) <= set().union(*left), panel["title"]
        for target, labels in zip(panel["targets"], left, strict=False):
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]


def _left(expression: str) -> set[str]:
    """Return the labels that an expression's result may have: those that it is grouped by, else its metrics'."""
    grouped = {word for group in re.findall(r"\bby \(([^)]*)\)", expression) for word in re.findall(r"\w+", group)}
    return grouped or set().union(*(SERIES[metric] for metric in named(expression)[0]))


@for_each("name", BOARDS)
def test_searches_in_jaeger_name_attributes_that_exist(name: str) -> None:
    targets = [each for panel in panels(BOARDS[name]) for each in panel["targets"] if "tags" in each]
    links = [link["url"] for panel in panels(BOARDS[name]) for link in panel["fieldConfig"]["defaults"]["links"]]
    for link in links:
        if link.startswith("/explore"):
            (pane,) = json.loads(unquote(link.partition("panes=")[2])).values()
            targets += pane["queries"]
    keys = {key for each in targets for key in re.findall(r'([\w.]+)="', each["tags"])}
    assert keys <= ATTRIBUTES
