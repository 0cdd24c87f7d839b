"""More than the 4 MiB that a collector takes in one message by default."""

from typing import Any

import grpc  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]  # it has no types of its own
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from tests.stack.variables.own_collector import OwnCollector, own_collector
from tests.stack.variables.small_run import Collecting, Run

LIMIT = 4 * 1024 * 1024
MANY = """
# A network whose parameters have names as long as those of large models, and texts as long as a careful gate's.
block = torch.nn.Module()
for number in range(190):
    block.register_parameter(f"self_attention_of_the_decoder_{number:03}_query_projection_weight_before_rotation", torch.nn.Parameter(torch.ones(4)))
deep = torch.nn.Module()
deep.encoder = torch.nn.Module()
deep.encoder.layers = block
second = torch.optim.SGD(deep.parameters(), lr=0.1)
run.watch(deep, second, name="deep")
for step in range(12):
    for number, parameter in enumerate(deep.parameters()):
        parameter.grad = torch.full((4,), 1.5 ** (number % 40))
    second.step()
for number in range(300):
    seed = run.germinate(f"large-{number}", blueprint="conv", slot="r0c0")
    seed.gate(nissa.GateResult(gate="G1", passed=False, score=0.5, message="because " * 2000))
"""


def whole(collector: OwnCollector) -> ExportMetricsServiceRequest:
    """Return all metrics that arrived as one message."""
    found = ExportMetricsServiceRequest()
    for line in collector.requests("metrics"):
        found.MergeFrom(ParseDict(line, ExportMetricsServiceRequest(), ignore_unknown_fields=True))
    return found


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"], ids=["grpc", "http"])
def test_it_is_sent_in_parts_and_all_of_it_arrives(
    collector: Collecting, run: Run, protocol: str, tmp_path: Any
) -> None:
    with collector() as found:
        endpoint = found.endpoint("plain", "grpc" if protocol == "grpc" else "http")
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        done = run({**environ, "NISSA_LIMITS__GAUGE_POINTS_PER_EXPORT": "100000"}, within=MANY)
    assert done.err == ""
    together = whole(found)
    assert together.ByteSize() > LIMIT
    assert len(found.requests("metrics")) > 1
    norms = {(point.attributes["nissa.parameter.name"], point.time) for point in found.points("nissa.gradient.norm")}
    assert len(norms) == 12 * 190 + 4 * 2
    gates = [each for each in found.records() if each.get("eventName") == "nissa.seed.gate"]
    assert len(gates) >= 300
    assert sum(len(str(line)) for line in found.requests("logs")) > LIMIT
    assert len([span for span in found.spans() if span.name == "seed"]) == 302
    if protocol == "grpc":
        with own_collector(tmp_path / "other") as other:
            channel = grpc.insecure_channel(f"localhost:{other.grpc['plain']}")
            with channel, pytest.raises(grpc.RpcError, match="larger than max"):
                MetricsServiceStub(channel).Export(together)  # type: ignore[no-untyped-call]  # generated code
