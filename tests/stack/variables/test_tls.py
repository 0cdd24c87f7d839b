"""Certificates, keys and what is not encrypted, against a real collector."""

from pathlib import Path

import pytest

from tests.stack.variables.own_collector import SIGNALS
from tests.stack.variables.small_run import SPANS, Collecting, Run


def own(certificates: Path, signal: str = "") -> dict[str, str]:
    """Return the variables of a client that has a certificate, for all signals or for one."""
    part = f"{signal.upper()}_" if signal else ""
    return {
        f"OTEL_EXPORTER_OTLP_{part}CERTIFICATE": f"{certificates}/ca.pem",
        f"OTEL_EXPORTER_OTLP_{part}CLIENT_KEY": f"{certificates}/client.key",
        f"OTEL_EXPORTER_OTLP_{part}CLIENT_CERTIFICATE": f"{certificates}/client.pem",
    }


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_sides_show_a_certificate(collector: Collecting, run: Run, certificates: Path, protocol: str) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint("mtls", protocol),
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.replace("http", "http/protobuf"),
                "OTEL_EXPORTER_OTLP_HEADERS": "x-token=secret",
                **own(certificates),
            }
        )
    assert found.arrived() == {(signal, "mtls") for signal in SIGNALS}
    assert {each["header.x-token"] for signal in SIGNALS for each in found.resources(signal, "mtls")} == {"secret"}
    assert {span.name for span in found.spans("mtls")} >= SPANS


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_each_signal_has_its_own_certificates(
    collector: Collecting, run: Run, certificates: Path, protocol: str
) -> None:
    with collector() as found:
        paths = {signal: f"/v1/{signal}" if protocol == "http" else "" for signal in SIGNALS}
        run(
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.replace("http", "http/protobuf"),
                "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{certificates}/client.pem",
                **{
                    f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": found.endpoint("mtls", protocol) + paths[signal]
                    for signal in SIGNALS
                },
                **own(certificates, "traces"),
                **own(certificates, "metrics"),
                **own(certificates, "logs"),
            }
        )
    assert found.arrived() == {(signal, "mtls") for signal in SIGNALS}


def test_who_cannot_show_or_check_a_certificate_is_not_heard_and_trains_on(
    collector: Collecting, run: Run, certificates: Path
) -> None:
    with collector() as found:
        done = run(
            {
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
                "NISSA_LIMITS__EXIT_TIMEOUT_SECONDS": "1",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": found.endpoint("tls"),
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": found.endpoint("mtls"),
                "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE": f"{certificates}/ca.pem",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{found.endpoint('tls', 'http')}/v1/logs",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": f"{certificates}/ca.pem",
                "REQUESTS_CA_BUNDLE": f"{certificates}/client.pem",  # the HTTP exporter's library prefers it
            }
        )
    assert found.arrived() == set()
    assert "localhost:" in done.err, "nobody was told"


def test_without_a_scheme_grpc_is_encrypted_unless_told_otherwise(
    collector: Collecting, run: Run, certificates: Path
) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{certificates}/ca.pem",
                "OTEL_EXPORTER_OTLP_INSECURE": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"localhost:{found.grpc['plain']}",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"localhost:{found.grpc['tls']}",
                "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "false",
            }
        )
    assert found.arrived() == {("traces", "tls"), ("metrics", "plain"), ("logs", "plain")}


def test_a_scheme_decides_for_http_and_gives_way_for_grpc(collector: Collecting, run: Run, certificates: Path) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{certificates}/ca.pem",
                "OTEL_EXPORTER_OTLP_INSECURE": "false",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{found.endpoint('plain', 'http')}/v1/traces",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"localhost:{found.grpc['tls']}",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"localhost:{found.grpc['plain']}",
                "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "true",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://localhost:{found.grpc['plain']}",
                "OTEL_EXPORTER_OTLP_LOGS_INSECURE": "true",
            }
        )
    assert found.arrived() == {("traces", "plain"), ("metrics", "plain"), ("logs", "plain")}
