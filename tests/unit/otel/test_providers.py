"""Where telemetry goes, decided at start."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import _internal as logs_internal
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from nissa.config.sections import FilesConfig
from nissa.distributed.rank import Rank
from nissa.errors import ConfigurationError, UnknownNameError
from nissa.otel.global_providers import GlobalProviders
from nissa.otel.setup import Providers, obtain

Obtain = Callable[..., Providers]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def get(tmp_path: Path) -> Iterator[Obtain]:
    """Return a way to obtain providers, which are closed at the end."""
    obtained: list[Providers] = []

    def call(environ: dict[str, str] | None = None, **fields: Any) -> Providers:
        told: dict[str, Any] = {"service_name": None, "run_id": "run-1", "profile": "standard", "rank": Rank()}
        told |= {"folder": tmp_path / "out", "files": FilesConfig(directory=tmp_path)} | fields
        obtained.append(obtain(environ={} if environ is None else environ, **told))
        return obtained[-1]

    yield call
    for each in obtained:
        if each.owned:
            each.close(5.0)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the SDK's configurator, which would set providers for the whole process."""
    calls: list[dict[str, Any]] = []

    class Configurator:
        def configure(self, **kwargs: Any) -> None:
            names = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
            calls.append({"kwargs": kwargs, "environ": names})
            monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
            monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", MeterProvider(shutdown_on_exit=False))
            monkeypatch.setattr(logs_internal, "_LOGGER_PROVIDER", LoggerProvider(shutdown_on_exit=False))

    monkeypatch.setattr("opentelemetry.sdk._configuration._OTelSDKConfigurator", Configurator)
    return calls


def said(provider: Any) -> dict[str, Any]:
    return dict(provider.resource.attributes)


def test_files_are_written_when_nothing_is_configured(get: Obtain, tmp_path: Path) -> None:
    found = get()
    assert found.owned
    assert found.folder == tmp_path / "out"
    assert found.origin == str(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "logs.jsonl",
        "metrics.jsonl",
        "traces.jsonl",
    ]
    for provider in (found.tracer, found.meter, found.logger):
        assert provider not in (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())


def test_closing_own_providers_ends_their_thread(get: Obtain) -> None:
    found = get()
    assert found.flush(5.0)
    assert found.built is not None
    thread = found.built.pipeline.thread
    assert thread.is_alive()
    assert found.close(5.0)
    assert not thread.is_alive()


def test_each_rank_has_files_of_its_own(get: Obtain, tmp_path: Path) -> None:
    get(rank=Rank(3, 1, 8))
    assert (tmp_path / "out" / "traces-rank3.jsonl").exists()
    get(rank=Rank(0, 0, 1))
    assert (tmp_path / "out" / "traces.jsonl").exists()


def test_a_folder_that_cannot_be_written_says_what_to_do(get: Obtain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"Cannot write telemetry to .*NISSA_FILES__DIRECTORY"):
        get(folder=tmp_path / "file" / "below")


def test_the_resource_says_what_runs_where(get: Obtain) -> None:
    resource = said(get(rank=Rank(3, 1, 8)).tracer)
    assert {name: value for name, value in resource.items() if name.startswith(("nissa.", "dl.", "service.name"))} == {
        "service.name": "nissa",
        "nissa.run.id": "run-1",
        "nissa.profile": "standard",
        "dl.rank": 3,
        "dl.local_rank": 1,
        "dl.world_size": 8,
    }


def test_without_a_launcher_there_is_no_rank(get: Obtain) -> None:
    assert not [name for name in said(get().tracer) if name.startswith("dl.")]


@pytest.mark.parametrize(
    ("environ", "argument", "name"),
    [
        ({}, None, "nissa"),
        ({}, "digits", "digits"),
        ({"OTEL_SERVICE_NAME": "env"}, None, "env"),
        ({"OTEL_SERVICE_NAME": "env"}, "digits", "digits"),
        ({"OTEL_SERVICE_NAME": ""}, None, "nissa"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=attr"}, None, "attr"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=attr"}, "digits", "digits"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "peer.service.name=other"}, None, "nissa"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=attr", "OTEL_SERVICE_NAME": "env"}, None, "env"),
    ],
)
def test_the_service_s_name_comes_from_the_argument_then_the_environment(
    get: Obtain, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], argument: str | None, name: str
) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    assert said(get(environ, service_name=argument).tracer)["service.name"] == name


@pytest.mark.parametrize("kind", ["trace", "metrics", "logs"])
def test_providers_that_the_application_has_set_are_kept(
    get: Obtain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    kinds: dict[str, Any] = {"trace": TracerProvider, "metrics": MeterProvider, "logs": LoggerProvider}
    own = kinds[kind](shutdown_on_exit=False)
    target = {"trace": trace, "metrics": metrics, "logs": _logs}[kind]
    name = {"trace": "get_tracer_provider", "metrics": "get_meter_provider", "logs": "get_logger_provider"}[kind]
    monkeypatch.setattr(target, name, lambda: own)
    found = get({ENDPOINT: "http://localhost:1"})
    assert own in (found.tracer, found.meter, found.logger)
    assert not found.owned
    assert found.folder is None
    assert not (tmp_path / "out").exists()
    assert "application" in found.origin


def test_a_provider_that_is_not_the_sdk_s_is_the_application_s_too(
    get: Obtain, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(metrics.MeterProvider):
        def get_meter(self, name: str, *_: Any, **__: Any) -> metrics.Meter:
            return metrics.NoOpMeter(name)

    own = Foreign()
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: own)
    found = get({ENDPOINT: "http://localhost:1"})
    assert found.meter is own
    assert not found.owned


def test_no_ops_that_somebody_has_set_are_nobody_s(get: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "get_meter_provider", metrics.NoOpMeterProvider)
    assert get().owned


def test_a_variable_that_selects_a_provider_is_put_back(get: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "of_nobody")
    with pytest.raises(ConfigurationError, match="OTEL_PYTHON_TRACER_PROVIDER selects cannot be loaded"):
        get({"OTEL_PYTHON_TRACER_PROVIDER": "of_nobody"})
    assert os.environ["OTEL_PYTHON_TRACER_PROVIDER"] == "of_nobody"


@pytest.mark.parametrize("value", ["true", " TRUE "])
def test_a_disabled_sdk_gets_nothing_even_from_providers_that_are_there(
    get: Obtain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    own = MeterProvider(shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: own)
    found = get({"OTEL_SDK_DISABLED": value, ENDPOINT: "http://localhost:1"})
    assert (found.tracer, found.meter, found.logger, found.owned) == (None, None, None, False)
    assert not (tmp_path / "out").exists()
    assert found.flush(1.0)


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_an_exporter_that_does_not_exist_is_named_with_what_does(get: Obtain, signal: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        get({f"OTEL_{signal}_EXPORTER": "otlp, consle"})
    assert f"OTEL_{signal}_EXPORTER" in str(caught.value)
    assert "Did you mean 'console'" in str(caught.value)
    assert {"console", "otlp", "none"} <= set(caught.value.available)


@pytest.mark.parametrize("name", [ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_an_endpoint_alone_means_otlp_and_the_environment_is_left_as_it_was(
    get: Obtain, configured: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environ = {name: "http://localhost:1", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": ""}
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    before = dict(os.environ)
    found = get(environ)
    (call,) = configured
    exporters = {key: value for key, value in call["environ"].items() if key.endswith("_EXPORTER")}
    assert exporters == {
        "OTEL_TRACES_EXPORTER": "none",  # the pipeline exports these two
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    assert found.built is not None
    assert found.built.signals == {"traces", "metrics"}
    assert dict(os.environ) == before
    assert found.origin == "OTLP at http://localhost:1"
    assert not found.owned


def test_a_second_run_has_providers_of_its_own_beside_those_of_the_first(
    get: Obtain, configured: list[dict[str, Any]], tmp_path: Path
) -> None:
    environ = {ENDPOINT: "http://localhost:1", "OTEL_LOGS_EXPORTER": "none"}
    first = get(environ)
    second = get(environ, run_id="run-2", folder=tmp_path / "second")
    assert len(configured) == 1  # global providers can be set only once
    assert said(second.tracer)["nissa.run.id"] == "run-2"
    assert second.meter is not first.meter
    assert second.logger is first.logger  # it exports nothing over OTLP
    assert second.built is not None
    assert second.reader is second.built.reader
    assert second.owned
    thread = second.built.pipeline.thread
    second.close(5.0)
    assert not thread.is_alive()


def test_providers_of_a_distro_are_left_to_the_signals_that_are_not_exported_over_otlp(
    get: Obtain, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = MeterProvider(shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: theirs)
    GlobalProviders.present().set_aside()
    found = get({ENDPOINT: "http://localhost:1", "OTEL_METRICS_EXPORTER": "console"})
    assert found.meter is theirs
    assert found.reader is None
    assert said(found.tracer)["nissa.run.id"] == "run-1"
    direct = get({ENDPOINT: "http://localhost:1"}, files=FilesConfig(delivery="sdk"))
    assert (direct.meter, direct.owned, direct.built) == (theirs, False, None)


def test_the_configurator_is_told_what_runs(get: Obtain, configured: list[dict[str, Any]]) -> None:
    found = get({"OTEL_TRACES_EXPORTER": "console"}, service_name="digits")
    (call,) = configured
    assert call["kwargs"]["resource_attributes"]["service.name"] == "digits"
    assert call["kwargs"]["resource_attributes"]["nissa.run.id"] == "run-1"
    assert "OTEL_*_EXPORTER" in found.origin


def test_a_configuration_file_describes_its_own_resource(get: Obtain, configured: list[dict[str, Any]]) -> None:
    found = get({"OTEL_CONFIG_FILE": "otel.yaml", "OTEL_TRACES_EXPORTER": "is ignored then"})
    assert configured[0]["kwargs"] == {}
    assert "otel.yaml" in found.origin


def test_what_the_sdk_cannot_set_up_is_a_configuration_error(get: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    class Configurator:
        def configure(self, **_: Any) -> None:
            raise RuntimeError("no sampler of that name")

    monkeypatch.setattr("opentelemetry.sdk._configuration._OTelSDKConfigurator", Configurator)
    with pytest.raises(ConfigurationError, match="no sampler"):
        get({"OTEL_TRACES_EXPORTER": "console"})


class Slow:
    """A provider that does not come back for a while."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.calls: list[str] = []

    def force_flush(self) -> bool:
        self.calls.append("force_flush")
        sleep(self.seconds)
        if self.error:
            raise self.error
        return True

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        sleep(self.seconds)


def made(*, owned: bool = False, **slow: Slow) -> Providers:
    kinds: dict[str, Any] = {"tracer": Slow(), "meter": Slow(), "logger": Slow()} | slow
    return Providers(**kinds, owned=owned, folder=None, origin="")


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("kind", ["tracer", "meter", "logger"])
def test_a_provider_that_hangs_is_not_waited_for(kind: str, owned: bool) -> None:
    began = monotonic()
    assert not made(owned=owned, **{kind: Slow(3.0)}).close(0.2)
    assert monotonic() - began < 1.5


def test_flushing_takes_as_long_as_the_slowest() -> None:
    together = threading.Barrier(3)

    class Waiting(Slow):
        def force_flush(self) -> bool:
            together.wait(30)  # for the others, so that one after the other none would end
            return super().force_flush()

    assert made(tracer=Waiting(), meter=Waiting(), logger=Waiting()).flush(60.0)
    assert not together.broken


def test_a_provider_that_fails_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert not made(meter=Slow(error=RuntimeError("no route"))).flush(5.0)
    assert "no route" in caplog.text


def test_providers_of_the_application_are_flushed_and_not_ended() -> None:
    theirs, ours = Slow(), Slow()
    made(meter=theirs).close(5.0)
    made(meter=ours, owned=True).close(5.0)
    assert (theirs.calls, ours.calls) == (["force_flush"], ["shutdown"])


def test_flushing_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    assert made().flush(5.0)
    assert threading.active_count() == before
