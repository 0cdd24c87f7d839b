"""Sending through the SDK, as an application does."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer

from nissa.semconv import attributes as attr
from scripts.stack import Stack


def resource(service: str) -> Resource:
    """Return the resource of a rank."""
    return Resource(
        {
            "service.name": service,
            "service.instance.id": f"{service}-3",
            attr.RUN_ID: f"{service}-run",
            attr.PROFILE: "standard",
            attr.RANK: 3,
            attr.LOCAL_RANK: 1,
            attr.WORLD_SIZE: 4,
        }
    )


def span_exporter(stack: Stack, protocol: str) -> SpanExporter:
    """Return an exporter for ``grpc`` or ``http/protobuf``."""
    if protocol == "grpc":
        return GrpcSpanExporter(endpoint=stack.otlp_grpc, insecure=True)
    return HttpSpanExporter(endpoint=f"{stack.otlp_http}/v1/traces")


@contextmanager
def tracer(stack: Stack, service: str, protocol: str = "grpc") -> Iterator[Tracer]:
    """Yield a tracer whose spans have left when the block ends."""
    provider = TracerProvider(resource=resource(service))
    provider.add_span_processor(SimpleSpanProcessor(span_exporter(stack, protocol)))
    yield provider.get_tracer("tests")
    provider.shutdown()


@contextmanager
def meter(stack: Stack, service: str) -> Iterator[Meter]:
    """Yield a meter whose numbers have left when the block ends."""
    exporter = OTLPMetricExporter(
        endpoint=stack.otlp_grpc,
        insecure=True,
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    provider = MeterProvider(metric_readers=[reader], resource=resource(service))
    yield provider.get_meter("tests")
    provider.shutdown()
