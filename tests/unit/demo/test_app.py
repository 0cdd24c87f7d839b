"""The demo from end to end, short."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import nissa
from nissa.demo.app import run_demo
from nissa.demo.closing import FILES, closing
from nissa.demo.display import Screen, health_bar, points, spark
from nissa.demo.results import DemoReport, EnvironmentReport, GateReport, SeedReport, StageReport
from nissa.errors import ConfigurationError
from nissa.journal import Spool

EPOCHS = 2


@pytest.fixture(autouse=True)
def fresh_hub() -> None:
    nissa.reset_hub()


def demo(tmp_path: Path, *, console: Console | None = None, json_output: bool = False) -> DemoReport:
    return run_demo(epochs=EPOCHS, profile="standard", directory=tmp_path, console=console, json_output=json_output)


def written(*, terminal: bool, width: int = 160) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width, height=40, no_color=True), stream


def seed_report(seed_id: str, outcome: str, improvement: float | None) -> SeedReport:
    return SeedReport(
        seed_id=seed_id,
        env_id=0,
        slot="r0c0",
        blueprint="norm",
        parameters=8,
        outcome=outcome,
        improvement=improvement,
        reason="G2: no isolation gain" if outcome == "culled" else None,
        trace_id=f"trace-of-{seed_id}",
        stages=(StageReport("germinated", 3, 1_000),),
        gates=(GateReport("G0", 3, "germinated", passed=True, score=None, checks_passed=("x",), checks_failed=()),),
    )


def report(*seeds: SeedReport, directory: str | None = "runs/r", page: str | None = "runs/r/report.html") -> DemoReport:
    environment = EnvironmentReport(env_id=0, epochs=48, baseline_accuracy=0.7, final_accuracy=0.8, seeds=seeds)
    return DemoReport(
        run_id="r",
        directory=directory,
        destination="OTLP, from the environment",
        profile="diagnostic",
        seed=0,
        seconds=40.0,
        environments=(environment,),
        page=page,
        no_page=None if page else "plotly is missing",
    )


def test_off_a_terminal_an_epoch_is_a_line_and_the_end_says_where_the_telemetry_is(tmp_path: Path) -> None:
    console, stream = written(terminal=False)
    done = demo(tmp_path, console=console)
    lines = stream.getvalue().splitlines()

    assert lines[0].startswith("epoch 1/2 · env 0 accuracy ")
    assert lines[1].startswith("epoch 2/2")
    assert done.directory is not None
    for name in FILES:
        assert (Path(done.directory) / name).is_file()
        assert any(line.endswith(f"{done.run_id}/{name}") for line in lines)
    assert sum(line.lstrip()[:2] in {"1.", "2.", "3."} for line in lines) == 3


def test_a_run_with_a_spool_is_found_and_read_by_a_command(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool", {}, keep=True)
    told = "\n".join(closing(report(directory=str(tmp_path))))
    assert f"is in:\n  {tmp_path / 'spool'}\n" in told
    assert f"Narrative of each epoch: nissa report {tmp_path} --open" in told
    spool.close()


def test_a_demo_ends_by_writing_its_report_and_says_where(tmp_path: Path) -> None:
    console, stream = written(terminal=False)
    done = demo(tmp_path, console=console)
    assert done.page == str(Path(str(done.directory)) / "report.html")
    assert "<title>nissa-demo" in Path(done.page).read_text()
    assert done.page in stream.getvalue()


def test_a_demo_without_plotly_says_what_its_report_would_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> None:
        raise ConfigurationError("pip install 'nissa[report]'")

    monkeypatch.setattr("nissa.report.write_report", missing)
    console, stream = written(terminal=False)
    done = demo(tmp_path, console=console)
    assert done.page is None
    assert "No report was written: pip install 'nissa[report]'" in stream.getvalue()


def test_on_a_terminal_both_environments_are_drawn(tmp_path: Path) -> None:
    console, stream = written(terminal=True)
    demo(tmp_path, console=console)

    for expected in ("nissa demo", "environment 0", "environment 1", "health", "accuracy", "4/4"):
        assert expected in stream.getvalue()


def test_a_narrow_terminal_has_the_environments_below_each_other(tmp_path: Path) -> None:
    console, stream = written(terminal=True, width=80)
    demo(tmp_path, console=console)
    titles = [line for line in stream.getvalue().splitlines() if "environment 0 ─" in line]
    assert titles
    assert not any("environment 1" in line for line in titles)


def test_as_json_nothing_but_the_report_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = demo(tmp_path, json_output=True)
    captured = capsys.readouterr()
    plain = json.loads(captured.out)

    assert plain == json.loads(json.dumps(done.to_dict()))
    assert [environment["epochs"] for environment in plain["environments"]] == [EPOCHS, EPOCHS]


def test_the_number_of_threads_and_the_random_state_are_given_back(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    demo(tmp_path, console=written(terminal=False)[0])

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_demo_without_epochs_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        run_demo(epochs=0)


def test_the_closing_lines_name_the_best_seed_and_the_worst() -> None:
    told = "\n".join(
        closing(
            report(
                seed_report("good", "fossilized", 0.03),
                seed_report("best", "fossilized", 0.04),
                seed_report("poor", "culled", 0.001),
                seed_report("worst", "culled", -0.02),
                seed_report("late", "interrupted", None),
            )
        )
    )

    assert "5 seeds in 40 s: 2 fossilized, 2 culled, 1 interrupted" in told
    assert "best (norm in r0c0, +4.00 points), trace trace-of-best" in told
    assert "worst (norm in r0c0, -2.00 points), trace trace-of-worst, G2: no isolation gain" in told
    assert "nissa.narrative" in told
    assert "runs/r/logs.jsonl" in told


def test_where_telemetry_went_elsewhere_the_closing_lines_say_where() -> None:
    told = "\n".join(closing(report(directory=None, page=None)))

    assert "OTLP, from the environment" in told
    assert "logs.jsonl" not in told
    assert "report" not in told
    assert "none germinated" in told


def test_what_was_not_measured_is_a_dash() -> None:
    assert spark([]).plain == health_bar(None).plain == points(None).plain == "—"


def test_values_become_bars_between_their_own_extremes() -> None:
    assert spark([0.0, 1.0]).plain.rstrip() == "▁█"
    assert spark([0.5, 0.5]).plain.rstrip() == "▁▁"
    assert health_bar(0.5).plain == "█████░░░░░ health 0.50"
    assert points(0.0123).plain == "+1.23"


def test_a_screen_before_the_first_epoch_is_complete() -> None:
    console, stream = written(terminal=True)
    with Screen(console, [], epochs=1):
        pass
    assert "nissa demo" in stream.getvalue()
