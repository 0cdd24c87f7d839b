"""Settings of the OTLP client: defaults, precedence, and values that are refused with the fix."""

from pathlib import Path

import pytest

from nissa.errors import ConfigurationError
from nissa.otel.otlp.settings import OtlpSettings

PREFIX = "OTEL_EXPORTER_OTLP_"


def settings(signal: str = "traces", **variables: str) -> OtlpSettings:
    """Return the settings of variables without their common prefix."""
    return OtlpSettings.from_environment(signal, {f"{PREFIX}{name}": value for name, value in variables.items()})


def test_nothing_set_is_grpc_at_the_usual_port() -> None:
    found = settings()
    assert (found.protocol, found.target, found.secure, found.timeout) == ("grpc", "localhost:4317", False, 10)
    assert found.destination == "localhost:4317 (grpc)"


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_the_path_of_a_signal_is_added_to_a_general_endpoint_only(protocol: str, signal: str) -> None:
    assert settings(signal, PROTOCOL=protocol).endpoint == f"http://localhost:4318/v1/{signal}"
    general = settings(signal, PROTOCOL=protocol, ENDPOINT="https://h:1/base/")
    assert (general.endpoint, general.secure) == (f"https://h:1/base/v1/{signal}", True)
    assert general.address == "https://h:1/base"
    own = {f"{signal.upper()}_ENDPOINT": "http://h:1", "ENDPOINT": "http://other"}
    assert settings(signal, PROTOCOL=protocol, **own).endpoint == "http://h:1"


def test_the_path_comes_before_a_query() -> None:
    found = settings(PROTOCOL="http/protobuf", ENDPOINT="http://h:1/base/?api_key=s3cret")
    assert found.endpoint == "http://h:1/base/v1/traces?api_key=s3cret"
    assert found.destination == "http://h:1/base/v1/traces (http/protobuf)"


def test_variables_of_a_signal_override_the_general_ones_and_empty_ones_do_not() -> None:
    variables = {
        "TIMEOUT": "3", "LOGS_TIMEOUT": "4", "METRICS_TIMEOUT": " ",
        "COMPRESSION": "gzip", "LOGS_COMPRESSION": "none",
        "HEADERS": "a=1,b=2", "LOGS_HEADERS": "c=3",
        "PROTOCOL": "http/json", "LOGS_PROTOCOL": " grpc ",
    }  # fmt: skip
    logs, metrics = settings("logs", **variables), settings("metrics", **variables)
    assert (logs.timeout, logs.compression, dict(logs.headers), logs.protocol) == (4, "none", {"c": "3"}, "grpc")
    assert (metrics.timeout, metrics.compression, metrics.protocol) == (3, "gzip", "http/json")
    assert metrics.headers == {"a": "1", "b": "2"}


def test_an_endpoint_that_is_given_overrides_all_endpoint_variables() -> None:
    environ = {
        f"{PREFIX}LOGS_ENDPOINT": "http://own", f"{PREFIX}LOGS_PROTOCOL": "http/json", f"{PREFIX}PROTOCOL": "http/protobuf",
        f"{PREFIX}ENDPOINT": "http://general", f"{PREFIX}HEADERS": "a=1",
    }  # fmt: skip
    found = OtlpSettings.from_environment("logs", environ, endpoint="http://given:1")
    assert (found.endpoint, found.protocol, found.headers) == ("http://given:1/v1/logs", "http/protobuf", {"a": "1"})
    found = OtlpSettings.from_environment("logs", environ, endpoint="given:1", protocol="grpc")
    assert (found.target, found.protocol, found.secure) == ("given:1", "grpc", True)
    assert OtlpSettings.from_environment("logs", environ, protocol="http/protobuf").endpoint == "http://own"


@pytest.mark.parametrize(
    ("variables", "insecure"),
    [
        ({"ENDPOINT": "h:1"}, False),
        ({"ENDPOINT": "h:1", "INSECURE": "True"}, True),
        ({"ENDPOINT": "h:1", "INSECURE": "true", "TRACES_INSECURE": "false"}, False),
        ({"ENDPOINT": "http://h:1"}, True),
        ({"ENDPOINT": "http://h:1", "INSECURE": "false"}, False),
        ({"ENDPOINT": "https://h:1", "INSECURE": "true"}, False),
        ({"ENDPOINT": "https://h:1", "TRACES_INSECURE": "true"}, False),
        ({"ENDPOINT": "unix:///run/otel.sock", "INSECURE": "true"}, True),
    ],
)
def test_the_scheme_and_a_variable_decide_on_tls_over_grpc(variables: dict[str, str], *, insecure: bool) -> None:
    assert settings(**variables).insecure is insecure


def test_grpc_reads_the_files_of_one_scope(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca", "key", "pem", "own-ca", "own-key", "own-pem")}
    for path in files.values():
        Path(path).touch()
    pair = {"CLIENT_KEY": files["key"], "CLIENT_CERTIFICATE": files["pem"]}
    own = {"TRACES_CLIENT_KEY": files["own-key"], "TRACES_CLIENT_CERTIFICATE": files["own-pem"]}

    def used(**variables: str) -> tuple[str | None, ...]:
        found = settings(ENDPOINT="https://h:1", **variables)
        return found.certificate, found.client_key, found.client_certificate

    assert used(**pair) == (None, None, None)
    assert used(CERTIFICATE=files["ca"], **pair, **own) == (files["ca"], files["key"], files["pem"])
    assert used(TRACES_CERTIFICATE=files["own-ca"], **pair) == (files["own-ca"], None, None)
    assert used(TRACES_CERTIFICATE=files["own-ca"], **pair, **own) == (
        files["own-ca"], files["own-key"], files["own-pem"],
    )  # fmt: skip
    assert used(PROTOCOL="http/protobuf", TRACES_CERTIFICATE=files["own-ca"], **pair) == (
        files["own-ca"], files["key"], files["pem"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PROTOCOL": "http/jsno"}, r"protocol in OTEL_EXPORTER_OTLP_PROTOCOL 'http/jsno'.*mean 'http/json'"),
        ({"TRACES_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ({"TIMEOUT": "10s"}, r"OTEL_EXPORTER_OTLP_TIMEOUT is '10s'; give seconds"),
        *(({"TRACES_TIMEOUT": text}, "TRACES_TIMEOUT") for text in ("0", "-1", "nan", "inf")),
        ({"COMPRESSION": "zstd"}, "Unknown compression for grpc in OTEL_EXPORTER_OTLP_COMPRESSION 'zstd'"),
        ({"COMPRESSION": "deflate"}, "Available: gzip, none"),
        ({"PROTOCOL": "http/json", "COMPRESSION": "brotli"}, "deflate, gzip, none"),
        ({"PROTOCOL": "http/json", "ENDPOINT": "localhost:4318"}, "does not begin with http.*such as http://localhost:4318"),
        ({"PROTOCOL": "http/json", "TRACES_ENDPOINT": "ftp://h"}, "TRACES_ENDPOINT .*such as http://localhost:4318/v1/traces"),
        ({"PROTOCOL": "http/json", "ENDPOINT": "http://"}, "names no host"),
        ({"ENDPOINT": "http://h:port"}, "no valid host and port"),
        ({"ENDPOINT": "http://[::1"}, "no valid host and port"),
        ({"HEADERS": "x-key=%C3%A9"}, "gRPC cannot send the header 'x-key'"),
        ({"HEADERS": "x!key=a"}, "gRPC cannot send the header 'x!key'"),
        ({"HEADERS": "x-key=a%0Ab", "PROTOCOL": "http/json"}, "HTTP cannot send the header 'x-key'"),
        ({"HEADERS": "x-key=%E2%82%AC", "PROTOCOL": "http/json"}, "HTTP cannot send the header 'x-key'"),
        ({"CERTIFICATE": "/absent/ca", "ENDPOINT": "https://h"}, "CERTIFICATE for traces names /absent/ca, which cannot"),
        ({"CLIENT_KEY": __file__, "PROTOCOL": "http/json"}, "needed together"),
        ({"CLIENT_KEY": __file__, "CERTIFICATE": __file__, "ENDPOINT": "https://h"}, "needed together"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_fix(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        settings(**variables)


def test_unknown_codes_and_signals_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"RETRYABLE_ERROR_CODES 'UNAVAILABEL'. Did you mean 'UNAVAILABLE'"):
        OtlpSettings.from_environment("logs", {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "unavailabel"})
    with pytest.raises(ConfigurationError, match="trace"):
        OtlpSettings.from_environment("trace", {})


def test_what_is_unused_is_not_checked() -> None:
    assert settings(CERTIFICATE="/absent/ca", ENDPOINT="http://h:1").certificate is None
