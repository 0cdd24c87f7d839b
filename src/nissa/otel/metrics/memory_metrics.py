"""Metrics of the memory of the process and of its devices."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.otel.metrics.store import MetricStore


class Device(Protocol):
    """Memory of one device, in bytes; see `nissa.run.memory_usage.DeviceMemory`."""

    device: str
    name: str
    allocated: int
    peak: int
    reserved: int
    total: int


class MemoryMetrics:
    """Reads the memory before each collection.

    Args:
        store: Metric store of the run.
        resident: Returns the resident set size of the process; None where it is unknown.
        devices: Returns the memory of each device.
        now: Wall clock, nanoseconds since the Unix epoch.
    """

    def __init__(
        self,
        store: "MetricStore",
        *,
        resident: Callable[[], int | None],
        devices: Callable[[], Iterable[Device]],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._resident = resident
        self._devices = devices
        self._now = now

    def refresh(self) -> None:
        """Record the current values."""
        resident = self._resident()
        if resident is not None:
            self._store.set_total(metric.PROCESS_MEMORY, {}, resident)
        for device in self._devices():
            about = {attr.DEVICE: device.device, attr.DEVICE_NAME: device.name}
            for state in ("allocated", "peak", "reserved", "total"):
                labels = about | {attr.MEMORY_STATE: state}
                self._store.gauge(metric.DEVICE_MEMORY, labels, self._now(), getattr(device, state))
