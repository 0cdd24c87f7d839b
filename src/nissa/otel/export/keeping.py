"""Keeps spans and log records that could not be delivered and sends them again, and counts what is lost.

The SDK gives a batch ten seconds and then drops it, so that a collector's restart would cost the lifecycle of the seeds
of meanwhile. This is done to OTLP exporters that we have built from the environment, never to the application's.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from time import monotonic
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace.export import SpanExportResult

from nissa.otel.export import overhearing
from nissa.otel.export.reach import Reach
from nissa.semconv import spans as names

SPANS: Final = "spans"
RECORDS: Final = "log records"
POINTS: Final = "metric points"
QUEUE_SIZE: Final = 16_384
"""Spans, and log records, that wait for a collector by default: a hundred seeds an hour make some 2,000 spans."""
_QUEUE_SIZES: Final = ("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_QUEUE_SIZE")
_BATCH: Final = 512
_REST_SECONDS: Final = 5.0
"""How long nothing is tried after an attempt in vain, so that a long queue isn't one long wait."""


class Channel(Protocol):
    """The way of one signal to one exporter."""

    reach: Reach
    endpoint: str
    what: str

    @property
    def attempt(self) -> overhearing.Attempt:
        """The export that runs or ran last."""

    @property
    def waiting(self) -> int:
        """How many items are not delivered yet."""

    @property
    def behind(self) -> bool:
        """Whether an export failed of which the items are kept."""

    def retry(self) -> None:
        """Try now to deliver what is kept."""


class _Exporter:
    """What both kinds of channels know of their exporter."""

    def __init__(self, exporter: Any, what: str, reach: Reach) -> None:
        self.what = what
        self.reach = reach
        self.attempt = overhearing.Attempt()
        self._exporter = innermost(exporter)
        self.endpoint = str(getattr(self._exporter, "_endpoint", "the exporter's endpoint"))
        self._pid = os.getpid()
        self._inner: Callable[..., Any] = exporter.export
        exporter.export = self.export

    def export(self, batch: Any, **_: Any) -> Any:
        raise NotImplementedError

    def _try(self, batch: Any, **kwargs: Any) -> bool:
        """Export, and tell the reach how it went; whether it arrived."""
        with overhearing.overheard() as self.attempt:
            try:
                arrived = bool(self._inner(batch, **kwargs).name == "SUCCESS")
            except Exception as error:  # noqa: BLE001 - the SDK would log it and drop the batch
                self.attempt.error, arrived = error, False
        attempt = self.attempt
        if arrived:
            self.reach.succeeded(self.what, self.endpoint)
        elif not self._ended:  # else it is our own end that it failed of
            self.reach.failed(self.what, self.endpoint, attempt.reason or "no reason given", refused=attempt.refused)
        return arrived

    @property
    def _ended(self) -> bool:
        return bool(getattr(self._exporter, "_shutdown", False))


class Kept(_Exporter):
    """Spans or log records on their way.

    Args:
        exporter: Its ``export`` is replaced.
        queue: Where the SDK keeps what is not tried yet.
        what: What the items are, in words.
        results: The exporter's kind of answer.
        reach: Hears how exports go.
        most: Items that are kept; beyond it steps give way first, then the oldest.
    """

    def __init__(
        self, exporter: Any, queue: Sequence[Any], what: str, results: Any, reach: Reach, *, most: int
    ) -> None:
        super().__init__(exporter, what, reach)
        self._queue = queue
        self._results = results
        self._most = most
        self._held: deque[Any] = deque()
        self._rest_until = 0.0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many items are not delivered yet."""
        return len(self._held) + len(self._queue)

    @property
    def behind(self) -> bool:
        """Whether an export failed of which the items are kept."""
        return bool(self._held)

    def export(self, batch: Sequence[Any], **_: Any) -> Any:
        """Send a batch after those that are kept; what does not arrive is kept."""
        if os.getpid() != self._pid:  # the lock may be taken forever, and what is kept is the parent's
            with overhearing.overheard():
                return self._inner(batch)
        with self._lock:
            self._held.extend(batch)
            arrived = monotonic() >= self._rest_until and self._deliver()
        return self._results.SUCCESS if arrived else self._results.FAILURE

    def retry(self) -> None:
        """Try now to deliver what is kept."""
        if self._held and os.getpid() == self._pid:
            with self._lock:
                self._deliver()

    def _deliver(self) -> bool:
        everything = True
        while self._held:
            batch = list(islice(self._held, _BATCH))
            arrived = self._try(batch)
            if not arrived and (self._ended or not self.attempt.refused):
                self._rest(len(batch))
                return False
            self._drop(len(batch))
            if not arrived:
                self.reach.lose(self.what, len(batch))
                everything = False
        return everything

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._held.popleft()

    def _rest(self, tried: int) -> None:
        self._rest_until = monotonic() + _REST_SECONDS
        self._held.rotate(-tried)  # should this very batch be the trouble, the others get their turn
        over = len(self._held) - self._most
        if over > 0:
            self._give_way(over)

    def _give_way(self, count: int) -> None:
        """Forget some items: steps, which are many and no lifecycle, and then whatever is oldest."""
        steps = [place for place, item in enumerate(self._held) if getattr(item, "name", None) == names.STEP]
        others = (place for place, item in enumerate(self._held) if getattr(item, "name", None) != names.STEP)
        gone = {*steps[:count], *islice(others, max(0, count - len(steps)))}
        left = [item for place, item in enumerate(self._held) if place not in gone]
        self._held.clear()
        self._held.extend(left)
        self.reach.lose(self.what, len(gone))


class Counted(_Exporter):
    """Metrics on their way; totals heal at the next export, so that nothing is kept and what is lost is counted."""

    def __init__(self, exporter: Any, reach: Reach) -> None:
        super().__init__(exporter, POINTS, reach)
        self.waiting = 0
        self.behind = False

    def export(self, batch: Any, **kwargs: Any) -> MetricExportResult:
        """Send metrics; a forked child sends none, since they are its parent's."""
        if os.getpid() != self._pid:
            return MetricExportResult.SUCCESS
        self.waiting = _points(batch)
        arrived = self._try(batch, **kwargs)
        if not arrived:
            self.reach.lose(POINTS, self.waiting)
        self.waiting = 0
        return MetricExportResult.SUCCESS if arrived else MetricExportResult.FAILURE

    def retry(self) -> None:
        """Do nothing; see the class."""


_channels: "WeakKeyDictionary[Any, list[Channel]]" = WeakKeyDictionary()


def channels(provider: Any) -> Sequence[Channel]:
    """Return the channels of a provider that `keep` has seen, none for any other."""
    return _channels.get(provider, ())


def keep(tracer: Any, meter: Any, logger: Any) -> None:
    """Keep what the OTLP exporters of SDK providers cannot deliver; for providers of ours only.

    What is not built as the SDK builds it, or exports elsewhere, is left as it is.
    """
    reach = Reach()
    overhearing.install()
    spans = inside(tracer, "_active_span_processor", "_span_processors")
    records = inside(logger, "_multi_log_record_processor", "_log_record_processors")
    _channels[tracer] = [_keep(each, SPANS, SpanExportResult, reach) for each in map(_batches, spans) if each]
    _channels[logger] = [_keep(each, RECORDS, LogRecordExportResult, reach) for each in map(_batches, records) if each]
    exporters = [getattr(reader, "_exporter", None) for reader in inside(meter, "_metric_readers")]
    _channels[meter] = [Counted(exporter, reach) for exporter in exporters if _speaks_otlp(exporter)]


@contextmanager
def long_queues(environ: Mapping[str, str]) -> Iterator[None]:
    """Let the SDK build queues inside the block that outlast a collector's restart, unless the user has set them."""
    ours = dict.fromkeys((name for name in _QUEUE_SIZES if not environ.get(name)), str(QUEUE_SIZE))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def waiting(channels: Sequence[Channel]) -> Counter[str]:
    """Return how many items of each kind are not delivered yet."""
    found: Counter[str] = Counter()
    for channel in channels:
        found[channel.what] += channel.waiting
    return found


def _keep(batches: Any, what: str, results: Any, reach: Reach) -> Kept:
    queue, emit = batches._queue, batches.emit  # noqa: SLF001 - the SDK has no other way in
    most = queue.maxlen or QUEUE_SIZE

    def counted(item: Any) -> None:
        if len(queue) < most:
            emit(item)
            return
        reach.lose(what, 1)
        with overhearing.overheard():
            emit(item)

    batches.emit = counted
    return Kept(batches._exporter, queue, what, results, reach, most=most)  # noqa: SLF001 - as above


def inside(provider: Any, *path: str) -> Sequence[Any]:
    """Return the parts of a provider at a path of private names; none where it is built otherwise."""
    for name in path:
        provider = getattr(provider, name, ())
    return tuple(provider)


def _batches(processor: Any) -> Any:
    """Return the part of a batch processor that holds queue and exporter, None for any other processor."""
    found = getattr(processor, "_batch_processor", None)
    return found if _speaks_otlp(getattr(found, "_exporter", None)) else None


def _speaks_otlp(exporter: Any) -> bool:
    kinds = type(innermost(exporter)).__mro__
    return any(kind.__module__.startswith("opentelemetry.exporter.otlp.proto.") for kind in kinds)


def innermost(exporter: Any) -> Any:
    """Return what exports in the end, where an exporter of ours is around it."""
    return getattr(exporter, "_exporter", exporter)


def _points(batch: Any) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in batch.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
