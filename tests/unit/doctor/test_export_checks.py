"""Addresses, files for TLS, and waits that are bounded."""

import socket
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from nissa.doctor.export_checks import address, run_in_parallel, tls_files
from nissa.doctor.http import get
from nissa.doctor.probe import ServerKind, TlsFiles, probe
from nissa.otel.otlp.settings import OtlpSettings


@pytest.mark.parametrize(
    ("endpoint", "protocol", "expected"),
    [
        ("localhost:4317", "grpc", ("localhost", 4317)),
        ("collector", "grpc", ("collector", 443)),
        ("[::1]:4317", "grpc", ("::1", 4317)),
        ("http://h:4318/v1/traces", "http/protobuf", ("h", 4318)),
        ("https://h/v1/traces", "http/protobuf", ("h", 443)),
        ("http://u:p@h/v1/traces", "http/protobuf", ("h", 80)),
        ("http://h:port/", "http/protobuf", ("", 0)),
    ],
)
def test_an_endpoint_is_an_address(endpoint: str, protocol: str, expected: tuple[str, int]) -> None:
    assert address(endpoint, protocol) == expected


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_files_for_tls_are_those_of_the_client(protocol: str) -> None:
    settings = OtlpSettings("logs", protocol, "https://h", certificate="c", client_key="k", client_certificate="p")
    assert tls_files(settings, {}) == TlsFiles("c", "k", "p")


def test_a_bundle_of_the_library_wins_over_http() -> None:
    environ = {"CURL_CA_BUNDLE": "b"}
    for protocol, used in (("http/protobuf", "b"), ("http/json", "b"), ("grpc", "c")):
        settings = OtlpSettings("logs", protocol, "https://h", certificate="c")
        assert tls_files(settings, environ) == TlsFiles(used)


def test_what_does_not_end_is_not_waited_for() -> None:
    never = Event()
    began = monotonic()
    assert run_in_parallel([lambda: 1, lambda: int(never.wait(60)), lambda: 3], 1.5) == [1, None, 3]
    assert monotonic() - began < 50
    never.set()


def test_a_job_that_fails_is_none_and_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[object] = []
    monkeypatch.setattr("threading.excepthook", printed.append)
    assert run_in_parallel([lambda: 1, lambda: 1 // 0], 5) == [1, None]
    assert printed == []


def test_a_name_that_no_host_can_have_is_unknown() -> None:
    seen = probe("a" * 70 + ".example", 1, secure=False, tls_files=TlsFiles(), timeout=1)
    assert seen.kind is ServerKind.UNKNOWN_HOST


def test_a_file_for_tls_that_cannot_be_read_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        seen = probe("127.0.0.1", port, secure=True, tls_files=TlsFiles(str(tmp_path / "absent")), timeout=1)
    assert seen.kind is ServerKind.BAD_FILE


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "nonsense", "http://[::1", "ftp://127.0.0.1:9/"])
def test_asking_nobody_is_no_error(url: str) -> None:
    assert get(url, 0.5) is None
