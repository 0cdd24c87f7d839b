from importlib import resources
from pathlib import Path

import pytest
import yaml

from nissa.config import PROFILES, TelemetryConfig
from nissa.errors import ConfigurationError, UnknownNameError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        TelemetryConfig.from_yaml(path)
    assert path.name in str(caught.value)
    return str(caught.value)


PRESETS = resources.files("nissa.config") / "presets"


def test_the_presets_are_those_in_the_folder() -> None:
    assert sorted(entry.name for entry in PRESETS.iterdir()) == sorted(f"{name}.yaml" for name in PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_preset_starts_with_what_it_is_for(name: str) -> None:
    assert (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").startswith(("# For ", "# To "))


@pytest.mark.parametrize("name", PROFILES)
def test_a_preset_names_only_what_differs_from_the_defaults(name: str) -> None:
    def leaves(node: object, path: str = "") -> dict[str, object]:
        if not isinstance(node, dict):
            return {path: node}
        return {key: value for part, below in node.items() for key, value in leaves(below, f"{path}.{part}").items()}

    named = leaves(yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))
    defaults = leaves(TelemetryConfig().model_dump(mode="json"))
    assert named
    assert [path for path, value in named.items() if defaults[path] == value] == []


@pytest.mark.parametrize("text", ["profile: diagnostic", "profile_name: diagnostic"])
def test_a_file_names_its_base(text: str, tmp_path: Path) -> None:
    config = TelemetryConfig.from_yaml(write(tmp_path, f"{text}\ngradients:\n  every_n_steps: 4\n"))
    assert config.gradients.every_n_steps == 4
    assert config.gradients.percentiles == (1.0, 25.0, 50.0, 75.0, 99.0)
    assert config.profile_name == "diagnostic"


def test_a_file_without_a_base_starts_from_the_defaults(tmp_path: Path) -> None:
    assert TelemetryConfig.from_yaml(write(tmp_path, "history_length: 12")) == TelemetryConfig(history_length=12)


def test_a_label_stands_beside_its_base(tmp_path: Path) -> None:
    config = TelemetryConfig.from_yaml(write(tmp_path, "profile: research\nprofile_name: mine"))
    assert (config.profile_name, config.history_length) == ("mine", 50)


def test_a_label_alone_is_taken_for_a_misspelt_base(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "profile_name: diagnostik"))
    assert "Did you mean 'diagnostic'?" in message
    assert "put `profile: custom` beside it" in message


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "history_length: 12\ngradients: {every_n_steps: 4, max_parameters: 9}")
    config = TelemetryConfig.from_yaml(path, {"gradients": {"every_n_steps": 2}})
    assert (config.history_length, config.gradients.every_n_steps, config.gradients.max_parameters) == (12, 2, 9)


def test_a_file_may_use_dotted_keys_and_plain_exponents(tmp_path: Path) -> None:
    config = TelemetryConfig.from_yaml(write(tmp_path, "gradients.vanishing_threshold: 1e-9"))
    assert config.gradients.vanishing_threshold == 1e-9


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfhistory_length: 12")
    assert TelemetryConfig.from_yaml(str(path)).history_length == 12


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "null"])
def test_an_empty_file_is_refused_with_an_example(text: str, tmp_path: Path) -> None:
    assert "is empty; write a mapping such as `profile: standard`" in refusal(write(tmp_path, text))


def test_a_list_is_refused_with_an_example(tmp_path: Path) -> None:
    assert "contains a list; write a mapping such as `profile: standard`" in refusal(write(tmp_path, "- standard"))


@pytest.mark.parametrize("text", ["standard", "3", "2024-01-01", "false"])
def test_a_scalar_is_refused_with_an_example(text: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, text))
    assert "contains only the value" in message
    assert "write a mapping such as `profile: standard`" in message


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(Path("nowhere.yaml"))
    assert f"does not exist (looked for {tmp_path / 'nowhere.yaml'})" in message
    assert "correct the path" in message


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory; give the path of a YAML file" in refusal(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "history_length: 12")
    monkeypatch.setattr(Path, "read_text", deny)
    assert "cannot be read (Permission denied); check the path and its permissions" in refusal(path)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("profile_name: größe".encode("latin-1"))
    assert "is not UTF-8 text (byte 16); save it as UTF-8" in refusal(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("history_length: 12\ngradients: [1, 2\nx: y", "line 3"),
        ("history_length: 12\n gradients: 3", "line 2"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a: b: c", "line 1"),
    ],
)
def test_a_mistake_in_the_syntax_names_its_line(text: str, place: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, text))
    assert "is not valid YAML" in message
    assert place in message


@pytest.mark.parametrize("text", ["a: 2024-13-01", "a: \x01", "{[1]: 2}"])
def test_text_that_yaml_cannot_turn_into_values_is_refused(text: str, tmp_path: Path) -> None:
    assert "is not valid YAML" in refusal(write(tmp_path, text))


def test_a_key_that_occurs_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "limits: {queue_size: 3}\nhistory_length: 9\nlimits: {histogram_buckets: 20}"))
    assert "line 3" in message
    assert "'limits' occurs twice" in message


def test_a_key_that_yaml_reads_as_a_flag_is_refused(tmp_path: Path) -> None:
    assert "YAML reads a bare on, off, yes or no" in refusal(write(tmp_path, "gradients:\n  on: true"))


def test_an_unknown_base_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "profile: reserch")
    with pytest.raises(UnknownNameError, match="Did you mean 'research'"):
        TelemetryConfig.from_yaml(path)
    assert "run.yaml" in refusal(path)


@pytest.mark.parametrize("profile", ["3", "[standard]", "null"])
def test_a_base_that_is_no_name_is_refused(profile: str, tmp_path: Path) -> None:
    assert "profile must be one of minimal, standard" in refusal(write(tmp_path, f"profile: {profile}"))


def test_a_bad_value_names_the_file(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "profile: standard\nlimits:\n  queue_size: lots"))
    assert "limits.queue_size must be a whole number from 1 to 10,000,000, not 'lots' (from " in message
