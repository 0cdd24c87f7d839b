"""Export requests as serialized protobuf, below the size that a collector accepts by default (4 MiB).

Gauges of a run are written by `nissa.otel.metrics.gauge_encoder`, everything else by the official encoders. An item that
cannot be encoded (an attribute with a lone surrogate, for example) is reported and loses only itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics

from nissa.otel.compat import protobuf_log_encoder
from nissa.otel.metrics.batching import batches, count_points
from nissa.otel.metrics.gauge_encoder import Envelope, encoded_gauge, encoded_points
from nissa.otel.metrics.points import GaugePoints

MAX_REQUEST_BYTES: Final = 3 * 1024 * 1024
"""Maximum size of a request, before compression."""

MAX_POINTS: Final = 3_000
"""Maximum number of points that the official encoder writes into one request: 160 buckets each stay below 4 MiB."""

_encode_logs: Final = protobuf_log_encoder()
_ITEMS_PER_REQUEST: Final = 512


@dataclass(frozen=True, slots=True)
class Request:
    """One export request.

    Args:
        body: Serialized ``Export<Signal>ServiceRequest``.
        items: Number of spans, log records or metric points in it.
    """

    body: bytes
    items: int


Unencodable = Callable[[int, Exception], object]
"""Called with the number of items that cannot be encoded, and the reason."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the message as bytes."""


def span_requests(spans: Sequence[Any], unencodable: Unencodable) -> Iterator[Request]:
    """Yield requests with SDK spans (`ReadableSpan`), in their order."""
    return _requests(spans, _Encoder(encode_spans, len, unencodable))


def record_requests(records: Sequence[Any], unencodable: Unencodable) -> Iterator[Request]:
    """Yield requests with SDK log records (`ReadableLogRecord`), in their order."""
    return _requests(records, _Encoder(_encode_logs, len, unencodable))


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Official encoder of a signal.

    Args:
        encode: Returns a message with the given items.
        count: Returns the number of spans, records or points of items.
        unencodable: Called for what cannot be encoded.
    """

    encode: Callable[[Sequence[Any]], _Message]
    count: Callable[[Sequence[Any]], int]
    unencodable: Unencodable

    def requests(self, items: Sequence[Any]) -> Iterator[Request]:
        """Yield items as one request; halve them if it is too large or an item cannot be encoded."""
        try:
            body = self.encode(items).SerializeToString()
        except Exception as error:  # noqa: BLE001 - whatever the encoder makes of foreign attributes
            if len(items) == 1:
                self.unencodable(self.count(items), error)
                return
        else:
            if len(body) <= MAX_REQUEST_BYTES or len(items) == 1:
                yield Request(body, self.count(items))
                return
        middle = len(items) // 2
        yield from self.requests(items[:middle])
        yield from self.requests(items[middle:])


def _requests(items: Sequence[Any], encoder: _Encoder) -> Iterator[Request]:
    for start in range(0, len(items), _ITEMS_PER_REQUEST):
        yield from encoder.requests(items[start : start + _ITEMS_PER_REQUEST])


def metric_requests(
    data: MetricsData, unencodable: Unencodable, pause: Callable[[], object] = lambda: None
) -> Iterator[Request]:
    """Yield requests with the metrics of a collection.

    Args:
        data: The collection.
        unencodable: Called for what cannot be encoded.
        pause: Called between parts.
    """
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            own = [each for each in scope.metrics if isinstance(each.data.data_points, GaugePoints)]
            yield from _gauge_requests(resource, scope, own, pause)
            others = [each for each in scope.metrics if not isinstance(each.data.data_points, GaugePoints)]
            encoder = _Encoder(partial(_encode_scope, resource, scope), count_points, unencodable)
            for batch in batches(others, MAX_POINTS):
                yield from encoder.requests(batch)
                pause()


def _gauge_requests(
    resource: ResourceMetrics, scope: ScopeMetrics, metrics: Sequence[Metric], pause: Callable[[], object]
) -> Iterator[Request]:
    envelope = Envelope(resource.resource, scope.scope)
    encoded: list[bytes] = []
    size = items = 0
    for metric in metrics:
        blocks: list[bytes] = []
        for block, count in encoded_points(metric.data.data_points.rows):  # type: ignore[union-attr]  # GaugePoints
            if size and size + len(block) > MAX_REQUEST_BYTES:
                encoded.append(encoded_gauge(metric, b"".join(blocks)))
                yield Request(envelope.request(encoded), items)
                encoded, blocks, size, items = [], [], 0, 0
            blocks.append(block)
            size += len(block)
            items += count
            pause()
        encoded.append(encoded_gauge(metric, b"".join(blocks)))
    if items:
        yield Request(envelope.request(encoded), items)


def _encode_scope(resource: ResourceMetrics, scope: ScopeMetrics, metrics: Sequence[Metric]) -> _Message:
    scopes = [replace(scope, metrics=list(metrics))]
    message: _Message = encode_metrics(MetricsData([replace(resource, scope_metrics=scopes)]))
    return message
