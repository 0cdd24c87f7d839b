"""Variables at the top of a board; the values of each depend on those before it."""

from typing import Final

from dashboards.grafana import PROMETHEUS, Json
from dashboards.promql import VARIABLES, Matcher, series
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus
from nissa.semconv.metrics import MetricSpec

_EVERYTHING: Final = ".*"
"""Also what has no such label: a run of one process has no rank, and one of one environment no environment."""

_IN_ORDER, _NEWEST_FIRST = 7, 8  # natural order, so that 10 comes after 9; ids of runs begin with their time


def _query(key: str, source: MetricSpec, description: str, *before: str, several: bool = True) -> Json:
    within = {each: "$" + VARIABLES[each] for each in before}
    matchers = {each: it if each == pipeline.SERVICE_NAME else Matcher("=~", it) for each, it in within.items()}
    expression = f"label_values({series(source, matchers)}, {prometheus.label(key)})"
    return {
        "type": "query",
        "name": VARIABLES[key],
        "label": VARIABLES[key].capitalize(),
        "description": description,
        "datasource": PROMETHEUS,
        "query": {"query": expression, "refId": VARIABLES[key], "qryType": 5},
        "definition": expression,
        "refresh": 2,  # whenever the time changes
        "sort": _NEWEST_FIRST if key == attr.RUN_ID else _IN_ORDER,
        "multi": several,
        "includeAll": several,
        "options": [],
        "regex": "",
        "hide": 0,
        **({"allValue": _EVERYTHING, "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


_RUN: Final = (pipeline.SERVICE_NAME, attr.RUN_ID)

SERVICE: Final[Json] = _query(pipeline.SERVICE_NAME, metrics.STEP, "What trains", several=False)
RUN: Final[Json] = _query(
    attr.RUN_ID, metrics.HUB_EVENTS, "Training run; the newest comes first", pipeline.SERVICE_NAME, several=False
)
RUNS: Final[Json] = _query(
    attr.RUN_ID, metrics.HUB_EVENTS, "Training runs; the newest comes first", pipeline.SERVICE_NAME
)
RANK: Final[Json] = _query(attr.RANK, metrics.HUB_EVENTS, "Processes of a distributed run", *_RUN)
ENVIRONMENT: Final[Json] = _query(attr.ENV_ID, metrics.STEP, "Parallel environments of a run", *_RUN)
MODEL: Final[Json] = _query(attr.MODEL_NAME, metrics.GRADIENT_HEALTH, "Watched models, where there are several", *_RUN)
BLUEPRINT: Final[Json] = _query(attr.BLUEPRINT_ID, metrics.BLUEPRINT_PARAMETERS, "What seeds are built from", *_RUN)
PARAMETER: Final[Json] = _query(attr.PARAMETER_NAME, metrics.GRADIENT_NORM, "Parameters, or blocks of them", *_RUN)
TRACE: Final[Json] = {
    "type": "textbox",
    "name": "trace",
    "label": "Trace",
    "description": "Id of the trace that the panel at the bottom shows; a click in the list above it fills this in",
    "query": "",
    "current": {"text": "", "value": ""},
    "options": [],
    "hide": 0,
}
