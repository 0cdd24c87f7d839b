"""Exporters that variables select, and those that a configuration file declares."""

from pathlib import Path

import pytest
import yaml

from nissa.errors import ConfigurationError
from nissa.otel.otlp.declared import declared_settings
from nissa.otel.otlp.selection import SelectedExporter, selected_exporters


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"OTEL_LOGS_EXPORTER": "console"}, [SelectedExporter("logs", "console", None)]),
        (
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
            [SelectedExporter("metrics", "otlp", "grpc"), SelectedExporter("logs", "otlp", "grpc")],
        ),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp_proto_http,otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": " grpc ",
            },
            [
                SelectedExporter("traces", "otlp_proto_http", "http/protobuf"),
                SelectedExporter("traces", "otlp", "grpc"),
            ],
        ),
    ],
    ids=["nothing", "console", "endpoint", "protocols"],
)
def test_exporters_are_read_as_the_sdk_reads_them(environ: dict[str, str], expected: list[SelectedExporter]) -> None:
    assert selected_exporters(environ) == expected


def write(path: Path, exporter: dict[str, object]) -> str:
    """Write a file with the same exporter for spans, metrics and log records."""
    processors = [{"batch": {"exporter": exporter}}]
    declared = {
        "file_format": "1.0",
        "tracer_provider": {"processors": [*processors, {"simple": {"exporter": {"console": None}}}]},
        "meter_provider": {"readers": [{"periodic": {"exporter": exporter}}]},
        "logger_provider": {"processors": processors},
    }
    path.write_text(yaml.safe_dump(declared))
    return str(path)


def test_a_file_declares_exporters_and_variables_the_rest(tmp_path: Path) -> None:
    exporter = {"endpoint": "http://h:1/x", "headers": [{"name": "X-Key", "value": "a%20b"}], "timeout": 2500}
    file = write(tmp_path / "otel.yaml", {"otlp_http": exporter})
    environ = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://other",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-other=1",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
    }
    found = declared_settings(file, environ)
    assert [(each.signal, each.protocol, each.endpoint) for each in found] == [
        (signal, "http/protobuf", "http://h:1/x") for signal in ("traces", "metrics", "logs")
    ]
    assert [(dict(each.headers), each.timeout) for each in found] == [({"x-key": "a%20b"}, 2.5)] * 3
    assert [each.compression for each in found] == ["gzip", "none", "none"]


def test_a_declared_exporter_without_settings_is_that_of_the_variables(tmp_path: Path) -> None:
    file = write(tmp_path / "otel.yaml", {"otlp_grpc": {}})
    found = declared_settings(file, {"OTEL_EXPORTER_OTLP_ENDPOINT": "h:1", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=1"})
    assert [(each.target, each.secure, dict(each.headers)) for each in found] == [("h:1", True, {"x-key": "1"})] * 3
    with pytest.raises(ConfigurationError, match="TIMEOUT"):
        declared_settings(file, {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"})
