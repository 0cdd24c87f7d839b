"""``nissa profiles``."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nissa.cli import app
from nissa.config import PROFILES, TelemetryConfig, describe, profile_costs
from nissa.config.profile_costs import COLUMNS, ProfileCost, measured, measured_short
from nissa.errors import ConfigurationError
from scripts.reference_environment import overhead as from_results
from scripts.reference_environment import short_steps

LINE = "standard,mlp,0.012,0.008,0.016,2 cores of something,abc1234,2026-11-24"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "overhead.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{LINE}\n{LINE.replace('standard', 'research').replace('0.016', '0.5')}\n")
    (tmp_path / "within.csv").write_text("model,way,own,own_low,own_high\nmlp,standard,0.005,0.004,0.006\n")
    return path


@pytest.fixture
def committed(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the package installed with what `results` are made into."""
    text = from_results(results)
    assert text is not None
    installed = tmp_path / "overhead.json"
    installed.write_text(text)
    monkeypatch.setattr(profile_costs, "measured", lambda: measured(installed))
    monkeypatch.setattr(profile_costs, "measured_short", lambda: measured_short(tmp_path / "absent.json"))
    return installed


def run(*arguments: str) -> str:
    said = CliRunner().invoke(app, ["profiles", *arguments])
    if said.exception is not None:
        raise said.exception
    return said.output


def plain(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def sources(*arguments: str) -> dict[str, tuple[Any, str]]:
    return {each["setting"]: (each["value"], each["source"]) for each in plain("--effective", *arguments)["settings"]}


def test_all_profiles_are_shown_where_they_differ() -> None:
    said = run()
    for name in PROFILES:
        assert name in said
    assert "gradients.every_n_steps" in said
    assert "limits.queue_size" not in said


def test_one_profile_can_be_shown_with_every_setting() -> None:
    said = run("--profile", "research", "--all")
    assert "minimal" not in said
    for setting in describe(TelemetryConfig):
        assert (setting.path in said) == (setting.path != "profile_name"), setting.path


def test_json_has_every_profile_whole() -> None:
    said = plain()
    assert set(said["profiles"]) == set(PROFILES)
    for name, values in said["profiles"].items():
        assert TelemetryConfig.model_validate(values) == TelemetryConfig.from_profile(name)
        assert said["feature_counts"][name] == TelemetryConfig.from_profile(name).feature_count


def test_where_no_costs_are_committed_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(profile_costs, "measured", lambda: measured(tmp_path / "absent.json"))
    assert "not measured; no benchmark results are committed" in run()
    assert plain()["overhead"] == []


@pytest.mark.usefixtures("committed")
def test_committed_costs_are_shown_with_interval_and_machine() -> None:
    said = " ".join(run().replace("│", " ").split())
    assert "+1.20% (+0.80% to +1.60%)" in said
    assert "2 cores of something" in said
    assert "abc1234" in said
    assert "not measured" not in said
    (cost,) = plain("--profile", "research")["overhead"]
    assert cost == {
        "profile": "research", "model": "mlp", "ratio": 0.012, "low": 0.008, "high": 0.5,
        "machine": "2 cores of something", "commit": "abc1234", "date": "2026-11-24",
        "own": None, "own_low": None, "own_high": None, "goal": 0.15,
    }  # fmt: skip
    (cost,) = plain("--profile", "standard")["overhead"]
    assert [cost[name] for name in ("own", "own_low", "own_high", "goal")] == [0.005, 0.004, 0.006, 0.002]


@pytest.mark.usefixtures("committed")
def test_where_noise_hides_the_cost_that_of_our_own_code_is_shown_beside_the_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    (line,) = (each for each in run("--profile", "standard").splitlines() if "mlp" in each)
    assert "0.50% (0.40% to 0.60%)" in line
    assert "< 0.2%" in line


SHORT = """\
model,way,bare_us,added,added_low,added_high,machine,commit,date
mlp,bare,130,0.5,-1,2,2 cores,abc1234,2026-11-30
mlp,standard,131.4,95.2,90.7,99.6,2 cores,abc1234,2026-11-30
policy,standard,700,200,190,210,2 cores,abc1234,2026-11-30
"""


def test_what_profiles_add_to_short_steps_is_shown_with_interval_and_goal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, installed = tmp_path / "short.csv", tmp_path / "short_steps.json"
    assert short_steps(results) is None
    results.write_text(SHORT)
    installed.write_text(short_steps(results) or "")
    monkeypatch.setattr(profile_costs, "measured_short", lambda: measured_short(installed))
    monkeypatch.setenv("COLUMNS", "250")
    said = run().splitlines()
    lines = [line.replace("│", " ").split() for line in said if "abc1234" in line]
    assert [line[:11] for line in lines] == [
        ["standard", "mlp", "131", "µs", "95", "µs", "(91", "to", "100)", "30", "µs"],
        ["standard", "policy", "700", "µs", "200", "µs", "(190", "to", "210)", "2", "cores"],
    ]
    assert [cost["added"] for cost in plain()["short_steps"]] == [95.2, 200]
    assert plain("--profile", "minimal")["short_steps"] == []


def test_without_results_there_is_nothing_to_install(tmp_path: Path) -> None:
    assert from_results(tmp_path / "absent.csv") is None


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("standard", "luxury", "not a profile"),
        ("0.012", "much", "invalid number"),
        ("0.012", "0.9", "not within its interval"),
        ("abc1234", "", "lacks commit"),
    ],
)
def test_results_that_cannot_be_are_refused(results: Path, was: str, becomes: str, complaint: str) -> None:
    results.write_text(results.read_text().replace(was, becomes))
    with pytest.raises(ConfigurationError, match=complaint):
        from_results(results)


def test_results_with_other_columns_are_refused(results: Path) -> None:
    results.write_text(results.read_text().replace("machine", "computer"))
    with pytest.raises(ValueError, match="must have the columns"):
        from_results(results)


def test_every_column_is_a_field() -> None:
    row = dict(zip(COLUMNS, LINE.split(","), strict=True))
    assert ProfileCost.from_row(row).date == "2026-11-24"


def test_each_value_names_who_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("profile: diagnostic\nhistory_length: 7\ngradients:\n  max_parameters: 50\n  top_k: 5\n")
    monkeypatch.setenv("NISSA_GRADIENTS__TOP_K", "6")
    monkeypatch.setenv("NISSA_LIMITS", '{"queue_size": 11}')
    found = sources("--config", str(file), "--set", "gradients.every_n_steps=4", "--set", "console__enabled=false")
    assert found["strict"] == (None, "default")
    assert found["per_class.enabled"] == (True, "profile 'diagnostic'")
    assert found["history_length"] == (7, str(file))
    assert found["gradients.max_parameters"] == (50, str(file))
    assert found["gradients.top_k"] == (6, "NISSA_GRADIENTS__TOP_K")
    assert found["limits.queue_size"] == (11, "NISSA_LIMITS")
    assert found["limits.max_seeds"][1] == "default"
    assert found["gradients.every_n_steps"] == (4, "argument")
    assert found["console.enabled"] == (False, "argument")
    assert set(found) == {setting.path for setting in describe(TelemetryConfig)}


def test_a_profile_that_is_named_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NISSA_PROFILE", "research")
    assert sources()["profile_name"] == ("research", "profile 'research'")
    assert sources("--profile", "minimal")["profile_name"] == ("minimal", "profile 'minimal'")


def test_what_a_preset_says_about_a_histogram_that_is_off_is_not_its_value() -> None:
    found = sources("--profile", "research", "--set", "gradients.histogram=off")
    assert found["gradients.percentiles"] == ([], "default")


def test_the_table_of_values_shows_them_and_their_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NISSA_HISTORY_LENGTH", "9")
    line = next(line for line in run("--effective").splitlines() if "history_length" in line)
    assert [cell.strip() for cell in line.split("│")[1:4]] == ["history_length", "9", "NISSA_HISTORY_LENGTH"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "x=1"], "require --effective"),
        (["--effective", "--set", "nothing"], "SETTING=VALUE"),
        (["--effective", "--set", "gradients.every=1"], "gradients.every_n_steps"),
        (["--profile", "standart"], "'standard'"),
    ],
    ids=["without-effective", "no-value", "unknown-setting", "unknown-profile"],
)
def test_misuse_is_explained(arguments: list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        run(*arguments)
