"""Rules in Prometheus' own unit tests, and that each alert is shown to fire and not to fire."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import alerts, recording
from dashboards.build import RULES
from scripts.stack_build import binary
from scripts.stack_settings import ROOT
from tests.cases import for_each

TESTS = sorted((RULES / "tests").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "how-to" / "alerts.md"


@pytest.fixture
def promtool() -> Path:
    path = binary("promtool")
    if not path.exists():
        pytest.skip("promtool has not been built: python -m scripts.stack --processes build")
    return path


def _test(promtool: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    files = [str(path) for path in sorted((folder / "tests").glob("*.yaml"))]
    return subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, check=False)


def test_rules_do_what_their_tests_say(promtool: Path) -> None:
    done = _test(promtool, RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("rule", "part", "other"),
    [
        ("NissaRunStalled", "TRAINING_ENDED", "NEVER"),
        ("NissaRunStalled", "offset 10m", "offset 5m"),
        ("NissaRankSilent", "TRAINING_ENDED", "NEVER"),
        ("NissaRankSilent", "2m", "0m"),
        ("NissaRunLost", " and on () otelcol_process_uptime_seconds_total", ""),
        ("NissaGradientsNotFinite", "[1h]", "[5m]"),
        ("NissaLossNotFinite", "Inf", "1e300"),
        ("NissaReplicaMismatch", "> 0", "> 4"),
        ("NissaMoreCulledThanFossilized", ">= 5", ">= 4"),
        ("NissaRedFlag", "[1h]", "[5m]"),
        ("NissaTelemetryDropped", "dropped|failed", "dropped"),
        ("NissaExportLost", '!="delivered"', '="lost"'),
        ("NissaReadbackBehind", "> 0", "> 4"),
        ("NissaOverheadHigh", "avg_over_time", "max_over_time"),
        ("NissaCollectorAway", "2m", "10m"),
        ("NissaCollectorLosing", "> 0.8", "> 0.95"),
    ],
)
def test_a_rule_that_is_broken_fails(promtool: Path, tmp_path: Path, rule: str, part: str, other: str) -> None:
    shutil.copytree(RULES, tmp_path / "rules")
    path = tmp_path / "rules" / "alerts.yaml"
    content = yaml.safe_load(path.read_text())
    (found,) = [each for each in content["groups"][0]["rules"] if each["alert"] == rule]
    assert part in found["expr"] + found["for"]
    found |= {key: found[key].replace(part, other) for key in ("expr", "for")}
    path.write_text(yaml.safe_dump(content))
    assert _test(promtool, tmp_path / "rules").returncode == 1


def _expectations() -> list[tuple[str, bool]]:
    """Return alerts by name with whether they are expected to fire somewhere."""
    found = []
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            found += [(each["alertname"], bool(each["exp_alerts"])) for each in test.get("alert_rule_test", [])]
            found += [
                (name, bool(each.get("exp_samples")))
                for each in test.get("promql_expr_test", [])
                for name in _alerts_of(each)
            ]
    return found


def _alerts_of(test: dict[str, Any]) -> list[str]:
    matched = re.search(r'alertname=(~?)"([^"]+)"', test["expr"])
    if matched is None:
        return []
    pattern = matched[2] if matched[1] else re.escape(matched[2])
    return [alert.name for alert in alerts.ALL if re.fullmatch(pattern, alert.name)]


@for_each("name", [alert.name for alert in alerts.ALL])
def test_an_alert_is_shown_to_fire_and_not_to(name: str) -> None:
    assert {fires for alert, fires in _expectations() if alert == name} == {True, False}


def test_each_recording_rule_is_in_a_test_of_rules() -> None:
    text = "".join(path.read_text() for path in TESTS)
    assert recording.SUCCESS.name in text
    assert recording.MAGNITUDE.name in text
    assert recording.STEPS.name in (RULES / "alerts.yaml").read_text()  # what the tests of stalled runs stand on


@for_each("alert", alerts.ALL, ids=lambda alert: alert.name)
def test_an_alert_says_what_to_do(alert: alerts.Alert) -> None:
    page, _, anchor = alert.runbook.partition("#")
    assert ROOT / page == RUNBOOKS
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}
    assert len(headings) == len(alerts.ALL)
