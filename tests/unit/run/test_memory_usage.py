"""Memory of the process and of devices."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.memory_metrics import MemoryMetrics
from nissa.otel.metrics.store import MetricStore
from nissa.run.memory_usage import DeviceMemory, device_memory, resident_memory
from nissa.semconv import metrics as metric

GIB = 1 << 30
STATS = {
    "allocated_bytes.all.current": 3 * GIB,
    "allocated_bytes.all.peak": 5 * GIB,
    "reserved_bytes.all.current": 6 * GIB,
    "reserved_bytes.all.peak": 7 * GIB,
}


def test_the_resident_memory_is_that_of_the_process() -> None:
    psutil = pytest.importorskip("psutil")
    seen, exact = resident_memory(), psutil.Process().memory_info().rss
    assert seen is not None
    assert abs(seen - exact) < 16 << 20


def test_a_process_that_has_not_initialised_cuda_has_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> Any:
        raise AssertionError("a call would initialise CUDA")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("device_count", "memory_stats", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert [*device_memory()] == []


def test_a_device_has_the_numbers_of_torchs_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=140 * GIB)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda index: STATS if index == 1 else {})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert [*device_memory()] == [
        DeviceMemory("cuda:1", "NVIDIA H200", allocated=3 * GIB, peak=5 * GIB, reserved=6 * GIB, total=140 * GIB)
    ]


class Reader:
    """A metric reader, of which only the identity counts."""


def test_each_collection_records_the_memory_of_that_moment() -> None:
    store, sizes = MetricStore(0, GaugeLog(100, 100)), iter([10, 20])
    reader = Reader()
    store.gauges.attach(reader)

    def devices() -> Iterator[DeviceMemory]:
        yield DeviceMemory("cuda:0", "a", allocated=1, peak=2, reserved=3, total=4)

    memory = MemoryMetrics(store, resident=lambda: next(sizes, None), devices=devices, now=lambda: 7)
    for expected in (10, 20, 20):  # the last one is unknown, and the one before stays
        memory.refresh()
        (stream,) = store.sums[metric.PROCESS_MEMORY].values()
        assert stream.value == expected
    rows = [
        row for (spec, _), group in store.gauges.take(reader).items() if spec is metric.DEVICE_MEMORY for row in group
    ]
    points = [(dict(about)["nissa.memory.state"], value) for row in rows for about, _, value in row.points()]
    assert sorted(set(points)) == [("allocated", 1), ("peak", 2), ("reserved", 3), ("total", 4)]
    assert len(points) == 12
