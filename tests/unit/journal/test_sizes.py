"""A point takes at most 12 bytes in the spool and 25 bytes in a closed file, whatever its value."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from opentelemetry.exporter.otlp.json.common.metrics_encoder import encode_metrics as encode_json
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as encode_protobuf
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nissa.journal import FileJournal, Spool

SPOOL_GOAL = 12.0
FILE_GOAL = 25.0
NAMES = [f"blocks.{block}.{name}" for block in range(12) for name in (
    "attention.weight", "attention.bias", "out.weight", "out.bias", "mlp.0.weight", "mlp.0.bias", "norm.weight",
)]  # fmt: skip
METRICS = ("norm", "std", "abs_max", "mean")
SAMPLES = 10
EXPORTS = 6


def exports() -> Iterator[MetricsData]:
    """Yield exports of 5 s with a sample every half second; no value helps to predict another one's mantissa."""
    random = np.random.default_rng(0)
    time = 1_796_016_277_051_232_953
    for _ in range(EXPORTS):
        times = [int(time := time + 500_000_000 + int(random.integers(20_000_000))) for _ in range(SAMPLES)]
        metrics = []
        for metric in METRICS:
            values = random.lognormal(-5, 3, (SAMPLES, len(NAMES))).astype(np.float32)
            points = [
                NumberDataPoint({"nissa.parameter.name": name}, None, at, float(value))  # type: ignore[arg-type]
                for at, row in zip(times, values, strict=True)
                for name, value in zip(NAMES, row, strict=True)
            ]
            metrics.append(Metric(f"nissa.gradient.{metric}", "L2 norm of the gradient", "", Gauge(points)))
        scope = ScopeMetrics(InstrumentationScope("nissa", "0.1.0"), metrics, "")
        resource = Resource({"service.name": "digits", "nissa.run.id": "20261130-042312-9a0885"})
        yield MetricsData([ResourceMetrics(resource, [scope], "")])


POINTS = EXPORTS * SAMPLES * len(METRICS) * len(NAMES)


def test_a_point_in_the_spool_takes_at_most_12_bytes(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool", {})
    for data in exports():
        payload = gzip.compress(encode_protobuf(data).SerializeToString(), 6, mtime=0)
        spool.append("metrics", payload, POINTS // EXPORTS, time_unix_nano=1)
    assert spool.waiting("metrics") == POINTS == 20_160
    assert 6 < spool.size_bytes / POINTS <= SPOOL_GOAL
    spool.close()


def test_a_point_in_a_closed_file_takes_at_most_25_bytes(tmp_path: Path) -> None:
    journal = FileJournal.create(tmp_path, segment_bytes=400_000)
    for data in exports():
        journal.append("metrics", json.dumps(encode_json(data).to_dict(), separators=(",", ":")).encode(), 1)
    journal.append("metrics", b"{}", 0)
    journal.close()
    closed = [*tmp_path.glob("metrics.*.jsonl.gz")]
    assert len(closed) >= 5
    assert 10 < sum(path.stat().st_size for path in closed) / (POINTS * len(closed) / EXPORTS) <= FILE_GOAL
