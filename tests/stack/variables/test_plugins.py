"""Variables that name entry points, with a distribution that really offers some."""

import json
from pathlib import Path

import pytest

from tests.stack.variables.own_collector import SIGNALS
from tests.stack.variables.small_run import LOSSES, Collecting, Run

ENTRY_POINTS = """
[opentelemetry_resource_detector]
lab = plugins:Detector
[opentelemetry_id_generator]
counting = plugins:Counting
[opentelemetry_otlp_credential_provider]
channel = plugins:channel
session = plugins:session
[_opentelemetry_tracer_configurator]
quiet = plugins:quiet_tracers
[_opentelemetry_meter_configurator]
quiet = plugins:quiet_meters
[_opentelemetry_logger_configurator]
quiet = plugins:quiet_loggers
[opentelemetry_meter_provider]
asking = plugins:Asking
[opentelemetry_traces_sampler]
never = plugins:never
"""
PLUGINS = '''
import os
import grpc
import requests
from opentelemetry.metrics import CallbackOptions, MeterProvider, NoOpMeter
from opentelemetry.sdk._logs._internal import _LoggerConfig
from opentelemetry.sdk.metrics._internal import _MeterConfig
from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.trace import _TracerConfig
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

class Detector(ResourceDetector):
    def detect(self):
        return Resource({"lab.bench": "7"})

class Counting(RandomIdGenerator):
    last = 0
    def generate_span_id(self):
        Counting.last += 1
        return Counting.last

def channel():
    with open(os.environ["CERTIFICATES"] + "/ca.pem", "rb") as file:
        return grpc.ssl_channel_credentials(file.read())

def session():
    found = requests.Session()
    found.headers["x-team"] = "session"
    return found

quiet_tracers = lambda scope: _TracerConfig(is_enabled=scope.name != "nissa")
quiet_meters = lambda scope: _MeterConfig(is_enabled=scope.name != "nissa")
quiet_loggers = lambda scope: _LoggerConfig(is_enabled=scope.name != "nissa")

def never(argument):
    return ALWAYS_OFF

class Asking(MeterProvider):
    """Knows of no SDK; asks its observable instruments when it is told to."""

    def __init__(self):
        self.instruments = {}

    def get_meter(self, name, version=None, schema_url=None, attributes=None):
        return AskingMeter(self.instruments)

    def ask(self):
        told = {name: [each for ask in asks for each in ask(CallbackOptions())] for name, asks in self.instruments.items()}
        return {name: [(each.value, dict(each.attributes)) for each in some] for name, some in told.items() if some}

class AskingMeter(NoOpMeter):
    def __init__(self, instruments):
        super().__init__("asking")
        self.instruments = instruments

    def create_observable_gauge(self, name, callbacks=None, unit="", description=""):
        assert name not in self.instruments, name
        self.instruments[name] = list(callbacks)

    create_observable_counter = create_observable_up_down_counter = create_observable_gauge
'''


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    """Return what a script has to say to have the distribution."""
    folder = tmp_path / "plugins"
    about = folder / "plugins-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "plugins.py").write_text(PLUGINS)
    return f"import sys; sys.path.insert(0, {str(folder)!r})"


def test_credentials_detectors_and_ids(collector: Collecting, run: Run, certificates: Path, plugins: str) -> None:
    theirs = 'from opentelemetry import trace\ntrace.get_tracer("app").start_span("theirs").end()'
    with collector() as found:
        run(
            {
                "CERTIFICATES": str(certificates),
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint("tls"),
                "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "channel",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": found.endpoint("plain", "http") + "/v1/metrics",
                "OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER": "session",
                "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "lab,process",
                "OTEL_PYTHON_ID_GENERATOR": "counting",
            },
            before=plugins,
            within=theirs,
        )
    assert found.arrived() == {("traces", "tls"), ("logs", "tls"), ("metrics", "plain")}
    (metrics, *_) = found.resources("metrics")
    assert (metrics["header.x-team"], metrics["lab.bench"]) == ("session", "7")
    assert metrics["process.pid"] > 1
    ids = {span.name: int(span.span_id, 16) for span in found.spans("tls")}
    assert ids["theirs"] == 1
    assert ids["epoch"] > 1000, "ours are decided before there is a tracer"


def test_credentials_of_each_signal(collector: Collecting, run: Run, certificates: Path, plugins: str) -> None:
    with collector() as found:
        run(
            {
                "CERTIFICATES": str(certificates),
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint("tls"),
                **{f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{each.upper()}_CREDENTIAL_PROVIDER": "channel" for each in SIGNALS},
                # Without a certificate of the signal's own the exporter does not look at the provider.
                **{f"OTEL_EXPORTER_OTLP_{each.upper()}_CERTIFICATE": "not-read.pem" for each in SIGNALS},
            },
            before=plugins,
        )
    assert found.arrived() == {(signal, "tls") for signal in SIGNALS}


def test_sessions_of_each_signal(collector: Collecting, run: Run, plugins: str) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint("plain", "http"),
                "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "session",
                "OTEL_PYTHON_EXPORTER_OTLP_HTTP_LOGS_CREDENTIAL_PROVIDER": "session",
            },
            before=plugins,
        )
    teams = {signal: found.resources(signal)[0].get("header.x-team") for signal in SIGNALS}
    assert teams == {"traces": "session", "logs": "session", "metrics": None}


def test_configurators_of_ones_own(collector: Collecting, run: Run, plugins: str) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint("plain", "http"),
                "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "session",
                "OTEL_PYTHON_TRACER_CONFIGURATOR": "quiet",
                "OTEL_PYTHON_METER_CONFIGURATOR": "quiet",
                "OTEL_PYTHON_LOGGER_CONFIGURATOR": "quiet",
            },
            before=plugins,
        )
    assert found.arrived() == {("metrics", "plain")}, "our metrics are no meter's"
    assert found.resources("metrics")[0]["header.x-team"] == "session"


def test_a_sampler_of_ones_own(collector: Collecting, run: Run, plugins: str) -> None:
    with collector() as found:
        run({"OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(), "OTEL_TRACES_SAMPLER": "never"}, before=plugins)
    assert found.arrived() == {("metrics", "plain"), ("logs", "plain")}


ASK = """
from opentelemetry import metrics
run.flush()
print(json.dumps(metrics.get_meter_provider().ask()))
"""


def test_a_provider_that_a_variable_selects_is_offered_what_can_be_observed(run: Run, plugins: str) -> None:
    silent = "from opentelemetry import metrics\nassert metrics.get_meter_provider().ask() == {}"
    done = run({"OTEL_PYTHON_METER_PROVIDER": "asking"}, before=plugins, within=ASK, after=silent)
    told = json.loads(done.out)
    assert told["nissa.loss"] == [[LOSSES[-1], {"nissa.phase": "train"}], [0.5, {"nissa.phase": "validation"}]]
    assert [2, {"nissa.gate.name": "G2", "nissa.gate.passed": True}] in told["nissa.seed.gate.evaluations"]
    assert {name for name in told if "magnitude" in name or "duration" in name} == set()
    assert done.err.count("go to plugins.Asking through instruments") == 1
    assert "nissa.gradient.magnitude" in done.err
    assert done.destination == "the application's OpenTelemetry providers"


def test_exporters_that_are_named_win_over_a_provider_that_is_selected(
    collector: Collecting, run: Run, plugins: str
) -> None:
    with collector() as found:
        run(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": found.endpoint(),
                "OTEL_PYTHON_METER_PROVIDER": "asking",
                "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider",
                "OTEL_PYTHON_LOGGER_PROVIDER": "sdk_logger_provider",
            },
            before=plugins,
        )
    assert found.arrived() == {(signal, "plain") for signal in SIGNALS}
