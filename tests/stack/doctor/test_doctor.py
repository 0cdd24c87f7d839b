"""``nissa doctor`` against real collectors and silent listeners, in processes of their own."""

import socket
from pathlib import Path

import pytest

from scripts.stack import Stack
from scripts.stack_settings import LOOPBACK
from tests.stack.doctor.process import Certificates, Doctor
from tests.stack.variables.own_collector import SIGNALS, OwnCollector, free_ports, own_collector


def over(protocol: str, collector: OwnCollector, door: str = "plain") -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint(door, protocol),
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.replace("http", "http/protobuf"),
    }


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_collector_that_takes_everything_is_fine(doctor: Doctor, collector: OwnCollector, protocol: str) -> None:
    said = doctor(environ=over(protocol, collector))
    assert said.status == 0, said.out
    assert said.report["healthy"]
    reached = said.only("endpoint", "ok")
    assert reached["signals"] == list(SIGNALS)
    assert "takes exports" in reached["found"]
    assert collector.arrived() == set(), "empty exports leave nothing behind"
    assert said.findings("metrics", "ok")
    clock = said.only("clock", "note" if protocol == "grpc" else "ok")
    assert ("is not known" in clock["found"]) == (protocol == "grpc")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_endpoint_that_is_given_is_checked_instead(doctor: Doctor, collector: OwnCollector, protocol: str) -> None:
    told = {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://nowhere.invalid:1"}
    spoken = protocol.replace("http", "http/protobuf")
    said = doctor("--endpoint", collector.endpoint("plain", protocol), "--protocol", spoken, environ=told)
    assert said.status == 0, said.out
    assert said.only("endpoint", "ok")["signals"] == list(SIGNALS)


@pytest.mark.parametrize(
    ("protocol", "door", "wrong"),
    [("grpc", "http", "speaks HTTP/1.1, not gRPC"), ("http", "grpc", "speaks gRPC, not HTTP/1.1")],
)
def test_the_port_of_the_other_protocol_is_named(
    doctor: Doctor, collector: OwnCollector, protocol: str, door: str, wrong: str
) -> None:
    environ = {**over(protocol, collector), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint("plain", door)}
    said = doctor(environ=environ)
    assert said.status == 1
    found = said.only("endpoint", "error")
    assert wrong in found["found"]
    assert f"OTEL_EXPORTER_OTLP_PROTOCOL={'http/protobuf' if door == 'http' else 'grpc'}" in found["advice"]
    assert found["signals"] == list(SIGNALS)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_certificates_of_both_sides_are_used(
    doctor: Doctor, collector: OwnCollector, certificates: Certificates, protocol: str
) -> None:
    own = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": certificates.trust,
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates.folder / "client.key"),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates.folder / "client.pem"),
    }
    said = doctor(environ={**over(protocol, collector, "mtls"), **own})
    assert said.status == 0, said.out
    assert "TLS" in said.only("endpoint", "ok")["found"]

    refused = doctor(
        environ={**over(protocol, collector, "mtls"), "OTEL_EXPORTER_OTLP_CERTIFICATE": certificates.trust}
    )
    assert refused.status == 1
    assert "wants a certificate of ours" in refused.only("endpoint", "error")["found"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("trusted", [None, "other-ca.pem"], ids=["system", "another"])
def test_a_certificate_of_an_unknown_authority_is_explained(
    doctor: Doctor, collector: OwnCollector, certificates: Certificates, protocol: str, trusted: str | None
) -> None:
    file = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.folder / trusted)} if trusted else {}
    said = doctor(environ={**over(protocol, collector, "tls"), **file})
    assert said.status == 1
    found = said.only("endpoint", "error")
    assert "its certificate is not accepted" in found["found"]
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found["advice"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_certificate_for_another_name_is_explained(
    doctor: Doctor, certificates: Certificates, tmp_path: Path, protocol: str
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    certificate = certificates.authority.issue_cert("elsewhere.example")
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    certificates.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    with own_collector(tmp_path / "collector", folder) as found:
        said = doctor(
            environ={**over(protocol, found, "tls"), "OTEL_EXPORTER_OTLP_CERTIFICATE": certificates.trust},
        )
    problem = said.only("endpoint", "error")
    assert "certificate is not accepted" in problem["found"]
    assert "another name than 'localhost'" in problem["advice"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_scheme_that_does_not_fit_the_server_is_named(doctor: Doctor, collector: OwnCollector, protocol: str) -> None:
    plain, secure = collector.endpoint("plain", protocol), collector.endpoint("tls", protocol)
    spoken = over(protocol, collector)
    said = doctor(environ={**spoken, "OTEL_EXPORTER_OTLP_ENDPOINT": plain.replace("http:", "https:")})
    found = said.only("endpoint", "error")
    assert "the server speaks none" in found["found"]
    assert "http://" in found["advice"]

    said = doctor(environ={**spoken, "OTEL_EXPORTER_OTLP_ENDPOINT": secure.replace("https:", "http:")})
    found = said.only("endpoint", "error")
    assert "wants TLS, and none is used" in found["found"]
    assert "https://" in found["advice"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_silent_closed_and_unknown_endpoints_are_told_apart_in_time(doctor: Doctor, protocol: str) -> None:
    (closed,) = free_ports(1)
    path = {signal: f"/v1/{signal}" if protocol == "http" else "" for signal in SIGNALS}
    with socket.create_server((LOOPBACK, 0)) as silent:
        said = doctor(
            environ={
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol.replace("http", "http/protobuf"),
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{LOOPBACK}:{silent.getsockname()[1]}{path['traces']}",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{LOOPBACK}:{closed}{path['metrics']}",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://no-such-host.invalid:4317{path['logs']}",
            }
        )
    assert said.status == 1
    told = {each["signals"][0]: each["found"] for each in said.findings("endpoint", "error")}
    assert "no answer came" in told["traces"]
    assert f"nothing listens on port {closed}" in told["metrics"]
    assert "no host 'no-such-host.invalid'" in told["logs"]
    assert said.seconds < 15


def test_the_stack_s_collector_says_how_it_is(doctor: Doctor, stack: Stack) -> None:
    health = f"http://{LOOPBACK}:{stack.ports.collector_health}/"
    said = doctor(
        "--health", health, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{stack.ports.otlp_grpc}"}
    )
    assert said.status == 0, said.out
    assert health in said.only("collector", "ok")["found"]
    assert "agrees with ours" in said.only("clock", "ok")["found"]
