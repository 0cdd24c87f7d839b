"""Lines for people."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nissa.backends.console import STAGE_STYLES, ConsoleBackend, location_line, progress_line
from nissa.events import EventType, SeedSnapshot, Severity, SpanIds, Stage, TelemetryEvent
from nissa.hub.measurements import ProgressMeasured

SEED = SeedSnapshot(
    seed_id="s1",
    env_id=None,
    slot_id="r0c1",
    blueprint_id="conv",
    parameters=4800,
    ids=SpanIds(1, 2),
    first_root=2,
    attempt=0,
    stage=Stage.GERMINATED,
    previous=None,
    germinated_at=0,
    stage_since=0,
    epochs_total=0,
    epochs_in_stage=0,
    alpha=None,
    improvement=None,
    isolation_violations=0,
)


def printed(*events: TelemetryEvent, color: bool | None = None) -> str:
    stream = io.StringIO()
    backend = ConsoleBackend(stream, color=color)
    for event in events:
        backend.emit(event)
    return stream.getvalue()


def of_seed(kind: str, seed: SeedSnapshot | None = SEED, **fields: Any) -> TelemetryEvent:
    return TelemetryEvent(kind, seed_id="s1", seed=seed, **fields)


def test_an_epoch_is_one_line() -> None:
    data = {
        "train_loss": 0.41234,
        "validation_loss": 0.5,
        "validation_accuracy": 0.8765,
        "seeds": {"training": 2, "fossilized": 1},
        "narrative": "Training normally",
    }
    line = printed(TelemetryEvent(EventType.EPOCH_COMPLETED, epoch=3, data=data))
    assert line == (
        "epoch 3 · loss 0.412 -> 0.500 · accuracy 87.6% · seeds 2 training, 1 fossilized · Training normally\n"
    )


def test_what_was_not_measured_is_a_dash() -> None:
    line = printed(TelemetryEvent(EventType.EPOCH_COMPLETED, env_id="2", data={"error": "KeyboardInterrupt"}))
    assert line == "[env 2] epoch — · loss — -> — · accuracy — · ended by KeyboardInterrupt\n"


def test_epoch_and_accuracy_of_zero_are_numbers() -> None:
    data = {"train_loss": 0.0, "validation_accuracy": 0.0}
    assert printed(TelemetryEvent(EventType.EPOCH_COMPLETED, epoch=0, data=data)) == (
        "epoch 0 · loss 0.000 -> — · accuracy 0.0%\n"
    )


def test_a_loss_that_is_not_finite_shows_as_it_is() -> None:
    assert "loss nan -> inf" in printed(
        TelemetryEvent(
            EventType.EPOCH_COMPLETED,
            epoch=0,
            data={"train_loss": float("nan"), "validation_loss": float("inf")},
        )
    )


def test_lines_are_not_wrapped_and_brackets_are_no_markup() -> None:
    narrative = "[red]loud[/red] " + "word " * 100
    line = printed(TelemetryEvent(EventType.EPOCH_COMPLETED, epoch=0, data={"narrative": narrative.strip()}))
    assert line.count("\n") == 1
    assert "[red]loud[/red]" in line


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (of_seed(EventType.SEED_GERMINATED), "seed s1 (conv) germinated, 4,800 parameters"),
        (
            of_seed(EventType.SEED_GERMINATED, replace(SEED, parameters=None, blueprint_id=None)),
            "seed s1 (—) germinated",
        ),
        (
            of_seed(EventType.SEED_FOSSILIZED, replace(SEED, stage=Stage.FOSSILIZED, improvement=0.025)),
            "seed s1 (conv) fossilized, +2.50 points",
        ),
        (of_seed(EventType.SEED_FOSSILIZED), "seed s1 (conv) fossilized"),
        (
            of_seed(
                EventType.SEED_CULLED,
                replace(SEED, stage=Stage.CULLED, improvement=-0.003),
                data={"reason": "no gain"},
                env_id="1",
            ),
            "[env 1] seed s1 (conv) culled, -0.30 points: no gain",
        ),
        (of_seed(EventType.SEED_CULLED, None), "seed s1 (—) culled"),
    ],
)
def test_what_happens_to_a_seed_is_a_line(event: TelemetryEvent, line: str) -> None:
    assert printed(event) == line + "\n"


@pytest.mark.parametrize("stage", list(Stage))
def test_a_seed_in_any_stage_can_be_shown(stage: Stage) -> None:
    assert "germinated" in printed(of_seed(EventType.SEED_GERMINATED, replace(SEED, stage=stage)), color=True)
    assert stage in STAGE_STYLES or stage is Stage.UNKNOWN


def test_a_refusal_is_told_whatever_was_refused() -> None:
    line = printed(of_seed(EventType.SEED_STAGE_CHANGED, refused="A -> B is not allowed", env_id="0"))
    assert line == "[env 0] refused: A -> B is not allowed\n"


def test_findings_are_told_with_their_message_or_their_name() -> None:
    assert printed(TelemetryEvent(EventType.PLATEAU_DETECTED)) == "plateau detected\n"
    warning = TelemetryEvent(EventType.RED_FLAG_RAISED, message="exploding", severity=Severity.WARNING)
    assert printed(warning) == "exploding\n"


@pytest.mark.parametrize("kind", [EventType.SEED_STAGE_CHANGED, EventType.EPOCH_STARTED, "PPO_UPDATE"])
def test_other_events_print_nothing(kind: str) -> None:
    assert printed(TelemetryEvent(kind)) == ""


def test_there_is_no_colour_without_a_terminal() -> None:
    assert "\x1b" not in printed(of_seed(EventType.SEED_GERMINATED))
    assert "\x1b" not in printed(of_seed(EventType.SEED_GERMINATED), color=False)


def test_colour_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in printed(of_seed(EventType.SEED_GERMINATED), color=True)


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleBackend().emit(TelemetryEvent(EventType.PLATEAU_DETECTED))
    assert capsys.readouterr() == ("", "plateau detected\n")


def test_the_closing_line_recommends_what_is_possible() -> None:
    assert location_line("r", Path("my runs/r").absolute(), None).endswith("view it with: nissa report 'my runs/r'")
    assert location_line("r", Path("/elsewhere/r"), None).endswith("view it with: nissa report /elsewhere/r")
    assert location_line("r", None, "OTLP at http://c:4317").endswith("search there for nissa.run.id=r")
    assert location_line("r", None, None) == "nissa: run r has exported nothing, because OTEL_SDK_DISABLED is set"


def test_progress_is_one_line() -> None:
    fast = ProgressMeasured(env_id="a", step=1_200, time_unix_nano=0, loss=2.31, steps_per_second=1234.5)
    assert str(progress_line(fast)) == "[env a] step 1,200 · loss 2.310 · 1,234 steps/s · no findings"
    first = ProgressMeasured(env_id=None, step=0, time_unix_nano=0, red_flags=("loss_spike", "divergence"))
    assert str(progress_line(first)) == "step 0 · loss — · — steps/s · loss_spike, divergence"
