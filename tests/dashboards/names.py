"""Metrics and labels that a PromQL expression names, found without the code that built it."""

import re

from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus
from nissa.semconv.metrics import Kind

_KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "offset", "bool", "Inf", "NaN"}
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"\{([^}]*)\}")


def named(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that an expression names."""
    bare = _TEXT.sub('""', expression)
    labels = {word.strip() for group in _GROUPING.findall(bare) for word in group.split(",") if word.strip()}
    labels |= {word for group in _MATCHERS.findall(bare) for word in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", group)}
    bare = _MATCHERS.sub(" ", _GROUPING.sub(" ", bare))
    bare = re.sub(r"\boffset\s+\S+", " ", re.sub(r"\[[^]]*\]", " ", bare))
    words = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", bare)
    return {word for word in words if word not in _KEYWORDS}, labels


def metric_labels() -> dict[str, set[str]]:
    """Return every series that may be named, with the labels that it may have."""
    resource = {prometheus.label(key) for key in pipeline.RESOURCE}
    found: dict[str, set[str]] = {}
    for spec in metrics.ALL:
        labels = resource | {prometheus.label(key) for key in (*metrics.EVERY_STREAM, *spec.attributes)}
        name = prometheus.series(spec)
        if spec.kind is Kind.HISTOGRAM:
            found |= {f"{name}_bucket": {*labels, "le"}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            found[name] = labels
    for each in of_pipeline():
        found[each.name] = resource | {prometheus.label(key) for key in each.labels}
    return found


def of_pipeline() -> list[pipeline.PipelineSeries]:
    """Return what the pipeline adds."""
    declared = [value if isinstance(value, tuple) else (value,) for value in vars(pipeline).values()]
    return [each for group in declared for each in group if isinstance(each, pipeline.PipelineSeries)]


ATTRIBUTES = {value for name, value in vars(attr).items() if name.isupper()}
