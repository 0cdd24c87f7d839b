"""Time of the boards' queries over one day of a run with 200 parameters, and of one evaluation of each rule.

``python -m benchmarks.boards`` fills its own Prometheus and writes ``benchmarks/results/boards.csv``: for each query the
median and the maximum of several calls. Queries are sent one after the other, in the form that Grafana sends. Gauges have
a point every 15 s, which is every tenth step of 1.5 s; series of each export have one per minute.
"""

import csv
import math
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep, time
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from benchmarks.facts import commit, processor
from dashboards import recording
from nissa.events import Stage
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline
from nissa.semconv.metrics import Kind, MetricSpec
from scripts.stack_processes import Processes
from scripts.stack_settings import LOOPBACK, Ports
from tests.dashboards.names import of_pipeline
from tests.dashboards.reading import Asked, of_annotations, of_panels, rules
from tests.stack.queries import fetch

RESULTS = Path(__file__).parent / "results" / "boards.csv"
DAY = 24 * 3600
GAUGE_SECONDS, EXPORT_SECONDS = 15, 60
PARAMETERS = [f"blocks.{number // 10}.layer{number % 10}.weight" for number in range(200)]
ROUNDS = 5
MOST_MILLISECONDS = 1000
POINTS = 1000
"""Points of a panel of half a screen; Grafana rounds the step down to a whole minute."""
PORTION = 3600
"""Seconds of data in a request."""
SETTLING = 70
"""Seconds per block of Prometheus, as in a run of one day."""
BUCKETS = 96
"""Of a parameter's histogram: absolute values span twelve octaves at the scale of 3."""
FIELDS = ("query", "step", "series", "median_ms", "longest_ms", "parameters", "points", "rounds", "machine", "commit")

STAGES = [stage.label for stage in Stage if stage is not Stage.UNKNOWN]
VALUES: dict[str, list[str]] = {
    attr.ENV_ID: ["0"],
    attr.PHASE: ["train", "validation"],
    attr.CLASS_NAME: [str(number) for number in range(10)],
    attr.PARAMETER_NAME: PARAMETERS,
    attr.QUANTILE: ["0.01", "0.25", "0.5", "0.75", "0.99"],
    attr.SEED_STAGE: STAGES,
    attr.SEED_FROM: STAGES[:4],
    attr.SEED_TO: STAGES[2:],
    attr.SEED_OUTCOME: ["fossilized", "culled"],
    attr.SEED_SLOT: [f"r{number}" for number in range(8)],
    attr.BLUEPRINT_ID: [f"blueprint-{number}" for number in range(10)],
    attr.GATE_NAME: [f"G{number}" for number in range(6)],
    attr.GATE_PASSED: ["true", "false"],
    attr.GATE_CHECK: ["gain", "isolation", "host_busy"],
    attr.RED_FLAG_NAME: [f"flag-{number}" for number in range(16)],
    attr.SHARPNESS_METHOD: ["critical", "average_case"],
    attr.BACKEND_NAME: ["opentelemetry", "file"],
    attr.EVENT_TYPE: [f"type-{number}" for number in range(20)],
    attr.EVENT_OUTCOME: ["delivered", "dropped", "rejected"],
    pipeline.EXPORTER: ["otlp_grpc/jaeger", "otlp_http/prometheus"],
    pipeline.RECEIVER: ["otlp"],
    pipeline.SPAN_NAME: ["seed", "seed.training", "seed.blending", "epoch", "validation", "step"],
}
STANDS_FOR = {rule.name: f"recorded_{number}" for number, rule in enumerate(recording.ALL)}
"""Substitutes for recorded series, whose names OTLP would change: equal in number and kind."""
SPECS = (
    *metrics.ALL,
    MetricSpec(STANDS_FOR[recording.STEPS.name], Kind.GAUGE, "", ""),
    MetricSpec(STANDS_FOR[recording.SUCCESS.name], Kind.GAUGE, "", "", (attr.BLUEPRINT_ID,)),
    MetricSpec(STANDS_FOR[recording.MAGNITUDE.name], Kind.EXPONENTIAL_HISTOGRAM, "", ""),
    MetricSpec("traces_span_metrics_duration", Kind.EXPONENTIAL_HISTOGRAM, "s", "", (pipeline.SPAN_NAME,)),
    *(
        MetricSpec(
            each.name.removesuffix("_total"), Kind.COUNTER if each.name.endswith("_total") else Kind.GAUGE, "", "", keys
        )
        for each in of_pipeline()
        if each not in {pipeline.ALERTS, pipeline.SPAN_SECONDS}
        for keys in [tuple(key for key in each.labels if key in VALUES)]
    ),
)
RUN = {pipeline.SERVICE_NAME: "bench", pipeline.SERVICE_INSTANCE_ID: "p", attr.RUN_ID: "day", attr.PROFILE: "research"}


class Filling:
    """Generates the samples of a day: random walks for gauges, growing counts for counters."""

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self._random = np.random.default_rng(0)
        self._walks: dict[str, np.ndarray[Any, Any]] = {}
        self.points = 0

    def requests(self) -> Iterator[ExportMetricsServiceRequest]:
        """Yield write requests in order of time."""
        for start in range(self._begin, self._begin + DAY, PORTION):
            for spec in SPECS:
                request = ExportMetricsServiceRequest()
                resource = request.resource_metrics.add()
                for key, value in RUN.items():
                    resource.resource.attributes.add(key=key).value.string_value = value
                self._fill(resource.scope_metrics.add().metrics.add(name=spec.name, unit=spec.unit), spec, start)
                yield request

    def _fill(self, metric: Metric, spec: MetricSpec, start: int) -> None:
        keys = [attr.ENV_ID, *spec.attributes]
        streams = [dict(zip(keys, values, strict=True)) for values in product(*(VALUES[key] for key in keys))]
        every = GAUGE_SECONDS if spec.kind is Kind.GAUGE else EXPORT_SECONDS
        times = range(start, start + PORTION, every)
        self.points += len(streams) * len(times)
        fill = {
            Kind.GAUGE: self._gauge,
            Kind.COUNTER: self._sum,
            Kind.UP_DOWN_COUNTER: self._sum,
            Kind.HISTOGRAM: self._histogram,
            Kind.EXPONENTIAL_HISTOGRAM: self._exponential,
        }[spec.kind]
        fill(metric, spec, streams, times)

    def _gauge(self, metric: Metric, spec: MetricSpec, streams: list[dict[str, str]], times: range) -> None:
        walk = self._walks.get(spec.name, np.zeros(len(streams)))
        steps = self._random.normal(0, 0.05, (len(streams), len(times)))
        walks = np.clip(walk[:, None] + np.cumsum(steps, axis=1), -8, 2)
        self._walks[spec.name] = walks[:, -1]
        points = metric.gauge.data_points
        step = (times[0] - self._begin) // GAUGE_SECONDS
        for labels, line in zip(streams, np.exp(walks).tolist(), strict=True):
            for place, (at, value) in enumerate(zip(times, line, strict=True)):
                number = (
                    step + place if spec is metrics.STEP else float(value > 1) if spec is metrics.RED_FLAG else value
                )
                _label(points.add(time_unix_nano=at * 10**9, as_double=number), labels)

    def _sum(self, metric: Metric, spec: MetricSpec, streams: list[dict[str, str]], times: range) -> None:
        metric.sum.is_monotonic = spec.kind is Kind.COUNTER
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        points = metric.sum.data_points
        for place, labels in enumerate(streams):
            for at in times:
                passed = at - self._begin
                count = passed // (600 + 60 * (place % 7)) if metric.sum.is_monotonic else (passed // 900 + place) % 5
                point = points.add(start_time_unix_nano=self._begin * 10**9, time_unix_nano=at * 10**9, as_int=count)
                _label(point, labels)

    def _histogram(self, metric: Metric, spec: MetricSpec, streams: list[dict[str, str]], times: range) -> None:
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        for labels in streams:
            for at in times:
                counts = [(at - self._begin) // 60 + place for place in range(len(spec.bounds) + 1)]
                point = metric.histogram.data_points.add(
                    start_time_unix_nano=self._begin * 10**9,
                    time_unix_nano=at * 10**9,
                    count=sum(counts),
                    sum=float(sum(counts)),
                    bucket_counts=counts,
                    explicit_bounds=spec.bounds,
                )
                _label(point, labels)

    def _exponential(self, metric: Metric, spec: MetricSpec, streams: list[dict[str, str]], times: range) -> None:
        metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        totals = self._walks.get(spec.name, np.zeros((len(streams), BUCKETS)))
        shape = np.exp(-0.5 * ((np.arange(BUCKETS) - BUCKETS / 2) / 16) ** 2) * 200
        for at in times:
            totals = totals + self._random.poisson(shape, totals.shape)
            for labels, counts in zip(streams, totals.astype(int).tolist(), strict=True):
                point = metric.exponential_histogram.data_points.add(
                    start_time_unix_nano=self._begin * 10**9, time_unix_nano=at * 10**9, count=sum(counts), scale=3
                )
                point.positive.offset = -14 * 8
                point.positive.bucket_counts.extend(counts)
                _label(point, labels)
        self._walks[spec.name] = totals


def _label(point: Any, labels: dict[str, str]) -> None:
    for key, value in labels.items():
        point.attributes.add(key=key).value.string_value = value


def _send(address: str, request: ExportMetricsServiceRequest) -> None:
    head = {"Content-Type": "application/x-protobuf"}
    with urlopen(Request(address, request.SerializeToString(), head), timeout=120) as answer:  # noqa: S310 - loopback
        answer.read()


def _step(points: int) -> int:
    """Return the seconds between points with the rounding of Grafana: 15 minutes for a hundred points of a day."""
    wanted = DAY / points
    return next(step for step in (900, 600, 300, 120, 60, 30) if step <= wanted * 1.1)


def _rows(address: str, end: int, filling: Filling) -> Iterator[dict[str, object]]:
    for name, query, chosen in _queries():
        step = _step(100 if "by parameter and time" in name else POINTS)
        windows = {"__interval": f"{step}s", "__rate_interval": f"{max(120, 2 * step)}s", "__range": f"{DAY}s"}
        filled = query.filled({"service": "bench", "run": "day", **windows, **chosen})
        for recorded, stand_in in STANDS_FOR.items():
            filled = filled.replace(recorded, stand_in)
        # A rule evaluates the last two minutes, which contain two exports only while exports continue.
        at = end - EXPORT_SECONDS if name.startswith("rule ") else end
        took, found = _timed(address, filled, at, 0 if query.instant else step)
        yield {
            "query": name,
            "step": "" if query.instant else step,
            "series": found,
            "median_ms": f"{1000 * median(took):.1f}",
            "longest_ms": f"{1000 * max(took):.1f}",
            "parameters": len(PARAMETERS),
            "points": filling.points,
            "rounds": ROUNDS,
            "machine": processor(),
            "commit": commit(),
        }


def _queries() -> Iterator[tuple[str, Asked, dict[str, str]]]:
    """Yield queries with their variables: with all parameters, and with a single one if the query supports that."""
    for query in (*of_panels(), *of_annotations()):
        yield query.where, query, {}
        if "$distribution" in query.expression:
            yield f"{query.where} (one parameter)", query, {"distribution": PARAMETERS[0]}
    for query in (*rules("record"), *rules("alert")):
        yield f"rule {query.where}", query, {}


def _timed(address: str, expression: str, end: int, step: int) -> tuple[list[float], int]:
    took, found = [], 0
    for _ in range(ROUNDS):
        began = perf_counter()
        if step:
            answer = fetch(f"{address}/api/v1/query_range", query=expression, start=end - DAY, end=end, step=step)
        else:
            answer = fetch(f"{address}/api/v1/query", query=expression, time=end)
        took.append(perf_counter() - began)
        found = len(answer["data"]["result"])
    return took, found


def main() -> int:
    """Fill a Prometheus, time its queries and write the results."""
    with TemporaryDirectory() as folder:
        servers = Processes(Path(folder), Ports.free(), {})
        address = f"http://{LOOPBACK}:{servers.ports.prometheus}"
        servers.start_one("prometheus")
        try:
            end = math.floor(time())
            filling = Filling(end - DAY)
            began = perf_counter()
            for request in filling.requests():
                _send(f"{address}/api/v1/otlp/v1/metrics", request)
            print(f"{filling.points} points in {perf_counter() - began:.0f} s")
            sleep(SETTLING)
            rows = list(_rows(address, end, filling))
        finally:
            servers.stop()
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    slow = [row["query"] for row in rows if float(str(row["longest_ms"])) > MOST_MILLISECONDS]
    print("over a second:", ", ".join(map(str, slow)) or "none")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
