"""What can be said of the configuration without a server."""

import re
from typing import Any

import pytest
import yaml

from nissa.semconv import attributes as attr
from scripts.stack_docker import FILE
from scripts.stack_settings import CONFIG, ROOT, Ports, pinned

COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
COLLECTOR: dict[str, Any] = yaml.safe_load((CONFIG / "otel-collector.yaml").read_text())
FILES = [*CONFIG.glob("*.yaml"), *(ROOT / "dashboards" / "provisioning").rglob("*.yaml"), FILE, ROOT / ".env"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_checked_bounded_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["user"].partition(":")[0] not in ("root", "0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_listens_on_the_loopback_address_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:${STACK_") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_reads_its_configuration_and_writes_to_named_volumes(name: str) -> None:
    for source, target, *mode in (volume.split(":") for volume in SERVICES[name]["volumes"]):
        if source.startswith("."):
            assert mode == ["ro"], target
        else:
            assert source in COMPOSE["volumes"]


def test_every_variable_of_the_compose_file_is_pinned_or_has_a_default() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert needed <= pinned().keys()
    assert Ports.usual().variables().keys() <= pinned().keys()
    assert {name for name in pinned() if "VERSION" in name} <= needed


def test_nobody_has_a_password() -> None:
    grafana = SERVICES["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Editor"
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not [path for path in FILES if re.search(r"password\s*[:=]", path.read_text(), re.IGNORECASE)]


@pytest.mark.parametrize(
    ("variable", "folder", "module", "tag"),
    [
        ("COLLECTOR_VERSION", "otelcol", "go.opentelemetry.io/collector/otelcol", "0.{minor}.{patch}"),
        ("PROMETHEUS_VERSION", "prometheus", "github.com/prometheus/prometheus", "0.{major}{minor:0>2}.{patch}"),
        ("JAEGER_VERSION", "jaeger", "github.com/jaegertracing/jaeger", "1.{sixty_three_more}.{patch}"),
    ],
)
def test_images_have_the_version_that_is_built(variable: str, folder: str, module: str, tag: str) -> None:
    text = (CONFIG / "servers" / folder / "go.mod").read_text()
    (built,) = re.findall(rf"^\s*{re.escape(module)} v(\S+)", text, re.MULTILINE)
    major, minor, patch = pinned()[variable].split(".")
    # Jaeger 2.13 and 1.76 were one release; its module counts on from version 1.
    assert built == tag.format(major=major, minor=minor, patch=patch, sixty_three_more=int(minor) + 63)


def test_the_memory_limiter_comes_first_in_every_pipeline() -> None:
    for pipeline in COLLECTOR["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"


def test_what_leaves_the_host_waits_on_disk() -> None:
    for name, exporter in COLLECTOR["exporters"].items():
        if name.startswith("otlp"):
            assert exporter["sending_queue"]["storage"] == "file_storage"
            assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_every_component_of_the_collector_is_used() -> None:
    pipelines = COLLECTOR["service"]["pipelines"].values()
    used = {name for each in pipelines for part in ("receivers", "processors", "exporters") for name in each[part]}
    declared = {name for part in ("receivers", "processors", "exporters", "connectors") for name in COLLECTOR[part]}
    assert declared == used
    assert set(COLLECTOR["service"]["extensions"]) == COLLECTOR["extensions"].keys()


def test_configurations_spell_our_attributes_right() -> None:
    known = {value for name, value in vars(attr).items() if name.isupper()}
    for path in (CONFIG / "otel-collector.yaml", CONFIG / "prometheus.yaml"):
        said = set(re.findall(r"(?:nissa|dl)\.[a-z_.]+[a-z]", path.read_text()))
        assert {name for name in said if not name.startswith("nissa.semconv")} <= known
    promoted = yaml.safe_load((CONFIG / "prometheus.yaml").read_text())["otlp"]["promote_resource_attributes"]
    assert {attr.RUN_ID, attr.PROFILE, attr.RANK, attr.LOCAL_RANK, attr.WORLD_SIZE} <= set(promoted)


def test_the_page_about_the_pipeline_lists_every_variable() -> None:
    page = (CONFIG / "README.md").read_text()
    for name in ("otel-collector.yaml", "jaeger.yaml"):
        assert {
            each for each in re.findall(r"\$\{env:(\w+)", (CONFIG / name).read_text()) if f"`{each}`" not in page
        } == set()


def test_grafana_leads_from_an_exemplar_to_its_trace() -> None:
    path = ROOT / "dashboards" / "provisioning" / "datasources" / "stack.yaml"
    sources = {each["type"]: each for each in yaml.safe_load(path.read_text())["datasources"]}
    (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"
    assert link["datasourceUid"] == sources["jaeger"]["uid"]
