"""A collector that is not there, hangs or refuses costs a run its telemetry, one warning and a bounded end; no more."""

from pathlib import Path

import pytest

from tests.integration.absent import PROTOCOLS, collector, run

KINDS = ("nowhere", "silent", "UNAUTHENTICATED")
SLOW_KINDS = ("unknown", "UNAVAILABLE", "INVALID_ARGUMENT")
_REFUSALS = {"UNAUTHENTICATED": "401", "INVALID_ARGUMENT": "400"}
_QUICK = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BLRP_SCHEDULE_DELAY": "200"}
_SLACK = 40.0
"""Seconds that a busy machine may take on top of a bound. Waiting for an exporter takes 100 s, see `absent.run`."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.full) for kind in SLOW_KINDS)])
def test_training_goes_on_with_one_warning_and_ends_in_time(tmp_path: Path, kind: str, protocol: str) -> None:
    with collector(kind, protocol) as endpoint:
        told = run(tmp_path, endpoint, protocol)
    assert told.status == 0, told.err
    *facts, ended, left = told.out
    # The result is that of training alone, something was exported, and never by the thread that trains.
    assert facts == ["True", "True", "False"]
    assert float(left) - float(ended) < 5 + _SLACK
    assert told.exited - float(ended) < 5 + _SLACK
    (warning,) = told.err
    assert endpoint.removeprefix("http://") in warning
    if kind in _REFUSALS:
        assert "refuses" in warning
        assert (kind if protocol == "grpc" else _REFUSALS[kind]) in warning
    else:
        assert "make stack" in warning
    # Whoever corrects the credential wants the telemetry; what is malformed would be refused again.
    assert ("kept in" in warning) is (kind != "INVALID_ARGUMENT")


@pytest.mark.full
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["nowhere", "silent", "UNAVAILABLE", "UNAUTHENTICATED"])
def test_many_failures_are_one_warning(tmp_path: Path, kind: str, protocol: str) -> None:
    interval = {"OTEL_METRIC_EXPORT_INTERVAL": "300"}
    with collector(kind, protocol) as endpoint:
        told = run(tmp_path, endpoint, protocol, seconds=4, environ=_QUICK | interval)
    assert told.status == 0, told.err
    assert told.out[0] == "True"
    (warning,) = told.err
    assert "raining goes on" in warning


def test_further_failures_are_in_the_log_at_debug(tmp_path: Path) -> None:
    body = """
    import logging
    logging.basicConfig(level=logging.DEBUG)
    with nissa.start("standard", console__enabled=False) as run:
        run.germinate("seed-1", blueprint="conv")
        time.sleep(2)
    """
    with collector("nowhere", "grpc") as endpoint:
        told = run(tmp_path, endpoint, "grpc", body=body, environ=_QUICK)
    failures = [line for line in told.err if "does not reach the collector" in line]
    assert [line.partition(":")[0] for line in failures[:2]] == ["WARNING", "DEBUG"]
    assert [line.split(":")[1] for line in told.err if line.startswith(("WARNING:", "ERROR:"))] == ["nissa"]


def test_providers_of_the_application_keep_their_own_messages(tmp_path: Path) -> None:
    body = """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=1)))
    trace.set_tracer_provider(provider)
    with nissa.start("standard", console__enabled=False) as run:
        run.germinate("seed-1", blueprint="conv")
    """
    with collector("nowhere", "grpc") as endpoint:
        told = run(tmp_path, endpoint, "grpc", body=body)
    assert told.status == 0
    assert any(line.startswith("Failed to export traces") for line in told.err)


def test_forked_children_neither_wait_nor_warn(tmp_path: Path) -> None:
    body = """
    import logging, os
    from opentelemetry import trace
    from torch.utils.data import DataLoader, TensorDataset

    logging.basicConfig(format="%(process)d %(message)s")
    print(os.getpid(), flush=True)
    run = nissa.start("standard", console__enabled=False, limits__exit_timeout_seconds=90)
    run.germinate("seed-1", blueprint="conv")
    for _ in DataLoader(TensorDataset(torch.randn(8, 4)), num_workers=2):
        pass
    pid = os.fork()
    if pid == 0:
        trace.get_tracer("child").start_span("something to wait for").end()
        print(time.monotonic(), flush=True)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)
    """
    with collector("nowhere", "grpc") as endpoint:
        told = run(tmp_path, endpoint, "grpc", body=body)
    parent, ended, left, status = told.out
    assert status == "3"
    assert {line.partition(" ")[0] for line in told.err} <= {parent}
    assert float(left) - float(ended) < _SLACK


def test_sigterm_is_answered_in_time_and_with_the_warning(tmp_path: Path) -> None:
    body = """
    import os, signal
    run = nissa.start("standard", console__enabled=False)
    run.germinate("seed-1", blueprint="conv")
    print(time.monotonic(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    """
    with collector("silent", "grpc") as endpoint:
        told = run(tmp_path, endpoint, "grpc", body=body)
    assert told.status == -15
    assert told.exited - float(told.out[0]) < 5 + _SLACK
    assert len(told.err) == 1


def test_the_bound_is_a_setting_and_the_exit_status_is_kept(tmp_path: Path) -> None:
    body = """
    with nissa.start("standard", console__enabled=False, limits__exit_timeout_seconds=1) as run:
        run.germinate("seed-1", blueprint="conv")
        ended = time.monotonic()
    print(ended, flush=True)
    sys.exit(5)
    """
    with collector("silent", "http/protobuf") as endpoint:
        told = run(tmp_path, endpoint, "http/protobuf", body=body)
    ended, left = map(float, told.out)
    assert told.status == 5
    assert left - ended < 5, "the default"
