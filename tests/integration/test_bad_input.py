"""Each mistake at start is an error that says what to do."""

from pathlib import Path

import pytest

import nissa
from tests.toys import Toy


def test_an_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(nissa.UnknownNameError, match=r"(?s)standart.*standard.*minimal"):
        nissa.start("standart")


def test_an_unknown_setting_names_the_one_that_was_meant() -> None:
    with pytest.raises(nissa.ConfigurationError, match="every_n_steps"):
        nissa.start(gradients={"every_n_step": 5})


def test_an_unknown_environment_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NISSA_GRADIENTS__EVERY_N_STEP", "5")
    with pytest.raises(nissa.ConfigurationError, match="NISSA_GRADIENTS__EVERY_N_STEPS"):
        nissa.start()


def test_an_unknown_exporter_names_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlq")
    with pytest.raises(nissa.UnknownNameError, match=r"OTEL_TRACES_EXPORTER 'otlq'.*Did you mean 'otlp'"):
        nissa.start()


@pytest.mark.parametrize(
    ("content", "says"), [("", "empty"), ("- a\n- b\n", "list"), ("gradients: {enabled: [", "line"), ("7", "mapping")]
)
def test_a_file_that_is_no_configuration_is_an_error(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "nissa.yaml"
    path.write_text(content)
    with pytest.raises(nissa.ConfigurationError, match=f"(?is)nissa.yaml.*{says}|{says}.*nissa.yaml"):
        nissa.start(config=path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(nissa.ConfigurationError, match=path.name):
            nissa.start(config=path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(nissa.ConfigurationError, match="NISSA_FILES__DIRECTORY"):
        nissa.start(files={"directory": str(tmp_path / "file")})


def test_an_unknown_stage_names_those_that_exist() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        seed = run.germinate("s")
        with pytest.raises(nissa.InvalidValueError, match="Did you mean 'TRAINING'"):
            seed.advance("trainning")


def test_only_modules_and_optimizers_that_belong_together_can_be_watched(toy: Toy, another_toy: Toy) -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        with pytest.raises(nissa.WatchError, match=r"torch\.nn\.Module"):
            run.watch([1, 2], toy.optimizer)  # type: ignore[arg-type]
        with pytest.raises(nissa.WatchError, match=r"watch\(model, optimizer\)"):
            run.watch(toy.model, toy.model)  # type: ignore[arg-type]
        with pytest.raises(nissa.WatchError, match=r"Build it from model\.parameters\(\)"):
            run.watch(toy.model, another_toy.optimizer)
        handle = run.watch(toy.model, toy.optimizer)
        with pytest.raises(nissa.WatchError, match="watched already"):
            run.watch(toy.model, toy.optimizer)
        with pytest.raises(nissa.WatchError, match="name="):
            run.watch(another_toy.model, another_toy.optimizer)
        handle.close()
        run.watch(toy.model, toy.optimizer)


def test_a_module_that_is_none_cannot_germinate() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        with pytest.raises(nissa.InvalidValueError, match=r"torch\.nn\.Module"):
            run.germinate("s", module="conv")  # type: ignore[arg-type]
        with pytest.raises(nissa.InvalidValueError, match="state_dict"):
            run.resume_seed({"seed_id": "s"})


def test_an_error_at_start_leaves_nothing_behind() -> None:
    with pytest.raises(nissa.ConfigurationError):
        nissa.start("standard", backends=[object()])  # type: ignore[list-item]
    with nissa.start("minimal", console__enabled=False) as run:
        assert run.hub.backends == ("opentelemetry",)
