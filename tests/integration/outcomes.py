"""What became of the seeds of a run, as its files or its spool say."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nissa.journal import frames
from tests.support import points, spans


def outcomes(folder: Path, *, spooled: bool = False) -> dict[str, str]:
    """Return the outcomes of the ended seeds by id, from the files or from the spool of a run."""
    if not spooled:
        found = [span for span in spans(folder) if span.name == "seed"]
        return {span.attributes["nissa.seed.id"]: span.attributes["nissa.seed.outcome"] for span in found}
    result: dict[str, str] = {}
    for frame in frames(folder / "spool", signals=["traces"]):
        request = ExportTraceServiceRequest.FromString(gzip.decompress(frame.payload))
        for span in (span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans):
            if span.name == "seed":
                given = {each.key: each.value.string_value for each in span.attributes}
                result[given["nissa.seed.id"]] = given["nissa.seed.outcome"]
    return result


def latest_sums(folder: Path, metric: str, *, spooled: bool = False) -> dict[tuple[str, str], int]:
    """Return the newest value of a counter of transitions, by the stages before and after."""
    found = _spooled_sums(folder, metric) if spooled else _file_sums(folder, metric)
    return {(labels["nissa.seed.from"], labels["nissa.seed.to"]): value for labels, value in found}


def _file_sums(folder: Path, metric: str) -> Iterator[tuple[dict[str, Any], int]]:
    for point in points(folder, metric):
        yield dict(point.attributes), int(point.value)


def _spooled_sums(folder: Path, metric: str) -> Iterator[tuple[dict[str, Any], int]]:
    for frame in frames(folder / "spool", signals=["metrics"]):
        request = ExportMetricsServiceRequest.FromString(gzip.decompress(frame.payload))
        for found in (
            each for resource in request.resource_metrics for scope in resource.scope_metrics for each in scope.metrics
        ):
            for point in found.sum.data_points if found.name == metric else ():
                yield {each.key: each.value.string_value for each in point.attributes}, point.as_int
