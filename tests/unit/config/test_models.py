import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nissa.config import PROFILES, GradientConfig, TelemetryConfig, models
from nissa.errors import ConfigurationError, UnknownNameError


def test_a_configuration_is_frozen_at_every_depth() -> None:
    config = TelemetryConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.history_length = 20
    with pytest.raises(ValidationError, match="frozen"):
        config.gradients.every_n_steps = 1


def test_a_configuration_can_be_a_key() -> None:
    assert {TelemetryConfig.standard(): 1}[TelemetryConfig.standard()] == 1


def test_direct_construction_refuses_a_typo() -> None:
    with pytest.raises(ValidationError, match="histroy"):
        TelemetryConfig.model_validate({"histroy": 20})


@pytest.mark.parametrize("name", PROFILES)
def test_each_preset_has_a_constructor_and_carries_its_name(name: str) -> None:
    config = getattr(TelemetryConfig, name)()
    assert config == TelemetryConfig.from_profile(name)
    assert config.profile_name == name


@pytest.mark.parametrize(
    ("name", "norms", "ratios"),
    [
        ("minimal", False, False),
        ("standard", False, False),
        ("diagnostic", True, False),
        ("research", True, True),
    ],
)
def test_only_detailed_presets_look_at_weights(name: str, norms: bool, ratios: bool) -> None:
    gradients = TelemetryConfig.from_profile(name).gradients
    assert (gradients.weight_norms, gradients.update_ratios) == (norms, ratios)


@pytest.mark.parametrize(
    ("name", "history", "every", "percentiles", "classes", "steps"),
    [
        ("minimal", 5, None, (1, 50, 99), False, False),
        ("standard", 10, 10, (1, 50, 99), False, True),
        ("diagnostic", 20, 1, (1, 25, 50, 75, 99), True, True),
        ("research", 50, 1, (1, 5, 10, 25, 50, 75, 90, 95, 99), True, True),
    ],
)
def test_a_preset_is_what_its_name_promises(
    name: str, history: int, every: int | None, percentiles: tuple[float, ...], classes: bool, steps: bool
) -> None:
    config = TelemetryConfig.from_profile(name)
    assert config.history_length == history
    assert (config.gradients.every_n_steps if config.gradients.enabled else None) == every
    assert config.gradients.percentiles == percentiles
    assert config.gradients.layers == "all"
    assert config.per_class.enabled is classes
    assert config.spans.steps is steps


def test_custom_is_the_bare_defaults() -> None:
    assert TelemetryConfig.from_profile("custom") == TelemetryConfig()


def test_overrides_win_over_the_preset_and_leave_their_neighbours_alone() -> None:
    config = TelemetryConfig.from_profile("diagnostic", {"gradients": {"every_n_steps": 7}})
    assert config.gradients.every_n_steps == 7
    assert config.gradients.percentiles == (1, 25, 50, 75, 99)


def test_overrides_may_be_flat() -> None:
    config = TelemetryConfig.from_profile("standard", {"gradients__every_n_steps": 7, "limits.queue_size": 3})
    assert (config.gradients.every_n_steps, config.limits.queue_size) == (7, 3)


def test_a_section_may_be_given_as_its_model() -> None:
    section = GradientConfig(enabled=True, every_n_steps=3)
    assert TelemetryConfig.from_profile("research", {"gradients": section}).gradients == section


def test_overrides_are_not_mutated() -> None:
    overrides: dict[str, Any] = {"gradients": {"percentiles": [99, 1]}, "limits": {"queue_size": 3}}
    before = copy.deepcopy(overrides)
    TelemetryConfig.from_profile("research", overrides)
    assert overrides == before


def test_explicit_constructors_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NISSA_HISTORY_LENGTH", "33")
    monkeypatch.setenv("NISSA_PROFILE", "research")
    path = tmp_path / "run.yaml"
    path.write_text("profile: standard")
    assert TelemetryConfig.from_profile("standard") == TelemetryConfig.from_yaml(path)
    assert TelemetryConfig().history_length == TelemetryConfig.standard().history_length == 10


def test_turning_the_histogram_off_takes_the_presets_percentiles_along() -> None:
    config = TelemetryConfig.from_profile("research", {"gradients": {"histogram": False}})
    assert config.gradients.percentiles == ()
    assert config.gradients.every_n_steps == 1


def test_asking_for_percentiles_without_a_histogram_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"set histogram to true, or percentiles to \[\]"):
        TelemetryConfig.from_profile("research", {"gradients": {"histogram": False, "percentiles": [5]}})


@pytest.mark.parametrize(
    "config",
    [
        *(TelemetryConfig.from_profile(name) for name in PROFILES),
        TelemetryConfig(),
        TelemetryConfig(profile_name="mine", strict=True),
        TelemetryConfig(profile_name="research"),
        TelemetryConfig.from_profile("standard", {"profile_name": "ünsere", "gradients.layers": ["enc.*"]}),
        TelemetryConfig.from_profile("research", {"gradients.histogram": False, "files.directory": "~/a b"}),
    ],
    ids=lambda config: config.profile_name,
)
def test_yaml_round_trips(config: TelemetryConfig, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert TelemetryConfig.from_yaml(path) == config


def test_yaml_names_every_section_and_keeps_lists_on_one_line() -> None:
    text = TelemetryConfig.standard().to_yaml()
    assert "percentiles: [1.0, 50.0, 99.0]" in text
    assert all(f"\n{name}:" in f"\n{text}" for name in TelemetryConfig.model_fields)


def test_the_summary_shows_what_differs_between_profiles() -> None:
    summaries = {name: TelemetryConfig.from_profile(name).summary() for name in PROFILES}
    assert "gradients  off" in summaries["minimal"]
    assert "every 10 steps, all layers, percentiles 1, 50, 99" in summaries["standard"]
    assert "every step, all layers, percentiles 1, 25, 50, 75, 99, weight norms, streams" in summaries["diagnostic"]
    assert "weight norms, update ratios, streams for up to 200 parameters\n" in summaries["research"]
    assert "weight" not in summaries["standard"]
    assert "50 epochs" in summaries["research"]


def test_the_summary_describes_choices_of_ones_own() -> None:
    text = TelemetryConfig.from_profile(
        "standard",
        {
            "gradients": {"layers": ["enc.*"], "histogram": False, "group_by": "block", "top_k": 9, "ranks": "first"},
            "console.enabled": False,
            "strict": True,
            "spans.started": False,
        },
    ).summary()
    assert "layers enc.*, no percentiles" in text
    assert "streams for up to 200 blocks, of which the 9 largest a step, from rank 0" in text
    assert "console    off" in text
    assert "strict     yes" in text
    assert "starts of long spans" not in text


def test_the_feature_names_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[TelemetryConfig] = []

    def count(config: TelemetryConfig) -> tuple[str, ...]:
        calls.append(config)
        return ("a", "b")

    monkeypatch.setattr(models, "feature_names", count)
    config = TelemetryConfig()
    assert (config.feature_count, config.feature_count, config.feature_names) == (2, 2, ("a", "b"))
    assert len(calls) == 1


def test_the_cache_is_not_part_of_the_value() -> None:
    used, fresh = TelemetryConfig.standard(), TelemetryConfig.standard()
    assert used.feature_count
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert used.model_dump() == fresh.model_dump()
    assert pickle.loads(pickle.dumps(used)) == fresh  # noqa: S301  # our own bytes


def test_an_unknown_profile_lists_what_there_is_and_what_was_meant() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'standard'\?") as caught:
        TelemetryConfig.from_profile("standrad")
    assert all(name in str(caught.value) for name in PROFILES)


def test_the_name_of_another_preset_is_no_label() -> None:
    with pytest.raises(ConfigurationError, match="To start from 'research', give it as the profile"):
        TelemetryConfig.from_profile("standard", {"profile_name": "research"})
    assert TelemetryConfig.from_profile("standard", {"profile_name": "mine"}).profile_name == "mine"
