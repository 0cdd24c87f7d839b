"""Mistakes in settings that can be seen without asking anybody."""

from pathlib import Path

import pytest

from nissa.doctor.check_result import CheckResult, Level
from nissa.doctor.settings import check_configuration, check_settings, shown

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}


def at(level: Level, environ: dict[str, str]) -> list[CheckResult]:
    return [each for each in check_settings(environ) if each.level is level]


def test_without_settings_files_are_written() -> None:
    (found,) = check_settings({})
    assert found.level is Level.NOTE
    assert "files" in found.found


def test_an_endpoint_alone_turns_on_all_signals() -> None:
    (found,) = check_settings(ENDPOINT)
    assert found.level is Level.OK
    assert found.signals == ("traces", "metrics", "logs")
    assert "otlp over grpc" in found.found


def test_each_signal_is_told_what_it_resolves_to() -> None:
    found = check_settings(
        {
            "OTEL_TRACES_EXPORTER": "otlp, console",
            "OTEL_METRICS_EXPORTER": "otlp_proto_http",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        }
    )
    assert [(each.found, each.signals) for each in found] == [
        ("Exported by otlp over http/protobuf.", ("traces",)),
        ("Exported by console.", ("traces",)),
        ("Exported by otlp_proto_http over http/protobuf.", ("metrics",)),
    ]


def test_a_signal_that_goes_nowhere_is_named() -> None:
    found = at(Level.WARNING, {"OTEL_TRACES_EXPORTER": "otlp"})
    assert [each.found.split()[0] for each in found] == ["metrics", "logs"]
    assert "OTEL_LOGS_EXPORTER=otlp" in found[1].advice


@pytest.mark.parametrize(
    ("environ", "level", "said"),
    [
        ({"OTEL_SDK_DISABLED": "TRUE", **ENDPOINT}, Level.WARNING, "sends and writes nothing"),
        ({"OTEL_SDK_DISABLED": "1"}, Level.WARNING, "disables nothing"),
        ({"OTEL_TRACES_EXPORTER": "otpl"}, Level.ERROR, "'otpl'"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/jsno"}, Level.ERROR, "'http/jsno' is no OTLP protocol"),
        ({"OTEL_EXPORTER_OTLP_ENDPIONT": "x"}, Level.WARNING, "OTEL_EXPORTER_OTLP_ENDPIONT is no variable"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}, Level.WARNING, "2.8 hours"),
        ({"OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "soon"}, Level.ERROR, "no number"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b,nonsense"}, Level.WARNING, "Entry 2 of"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "bad name=b,c=d"}, Level.WARNING, "Entry 1 of"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "absent.pem"}, Level.ERROR, "absent.pem, which cannot be read"),
        ({"OTEL_CONFIG_FILE": "absent.yaml"}, Level.ERROR, "absent.yaml, which cannot be read"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, Level.NOTE, "Prometheus pulls"),
    ],
    ids=lambda value: next(iter(value)) + "=" + next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_a_mistake_is_found(environ: dict[str, str], level: Level, said: str) -> None:
    assert any(said in each.found for each in at(level, environ)), check_settings(environ)


def test_what_headers_hold_is_in_no_finding() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "tokenwithoutname"}
    assert all("tokenwithoutname" not in each.found + each.advice for each in check_settings(environ))
    assert shown(environ) == {"OTEL_EXPORTER_OTLP_HEADERS": "***"}


def test_a_bundle_that_wins_over_a_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    environ = {
        **ENDPOINT, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file), "REQUESTS_CA_BUNDLE": str(file),
    }  # fmt: skip
    assert at(Level.WARNING, environ) == []
    (found,) = at(Level.WARNING, {**environ, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert "REQUESTS_CA_BUNDLE is set, and wins over OTEL_EXPORTER_OTLP_CERTIFICATE" in found.found


def test_a_file_that_declares_everything_is_named_alone(tmp_path: Path) -> None:
    file = tmp_path / "otel.yaml"
    file.touch()
    (found,) = check_settings({"OTEL_CONFIG_FILE": str(file), "OTEL_TRACES_EXPORTER": "otpl"})
    assert found.level is Level.OK
    assert str(file) in found.found


def test_variables_of_instrumentations_are_no_mistakes() -> None:
    assert at(Level.WARNING, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "x", "OTEL_SEMCONV_STABILITY_OPT_IN": "y"}) == []


def test_a_configuration_that_cannot_be_used_says_what_nissa_says() -> None:
    config, found = check_configuration({"NISSA_PROFILE": "standart"})
    assert config is None
    assert found.level is Level.ERROR
    assert "'standard'" in found.found
    config, found = check_configuration({"NISSA_PROFILE": "minimal"})
    assert config is not None
    assert (found.level, config.profile_name) == (Level.OK, "minimal")
