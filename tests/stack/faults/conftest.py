"""What the tests of faults share."""

from collections.abc import Callable

import pytest

from scripts.stack import Stack
from tests.stack.faults.table import Fault, Measured
from tests.stack.training import Transport, environment

HTTP = Transport("http/protobuf", "cumulative")
GRPC = Transport("grpc", "cumulative")

Keep = Callable[[Fault, str, str], None]


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Keep:
    """Return a function that keeps what was measured, for the published table."""

    def kept(fault: Fault, door: str, measured: str) -> None:
        Measured(fault, door, measured, request.node.nodeid.partition("[")[0]).keep()

    return kept


def settings(stack: Stack, transport: Transport, service: str, endpoint: str | None = None) -> dict[str, str]:
    """Return the environment of a training; its run ids are chosen as they are for users."""
    found = environment(stack, transport, service) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "5"}
    del found["NISSA_RUN_ID"]
    return found | ({} if endpoint is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
