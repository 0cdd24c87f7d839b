"""``nissa replay`` without a collector: what it counts, and what it says of folders and lines."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nissa
from nissa.cli.app import app
from nissa.errors import ConfigurationError
from tests.support import only_run, points, records, spans


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a small run."""
    with nissa.start("minimal", console__enabled=False) as run:
        run.germinate("seed-1", blueprint="conv", slot="r0c0").cull(reason="no improvement")
    return only_run(tmp_path)


def test_a_dry_run_counts_and_sends_nothing(run: Path) -> None:
    done = CliRunner().invoke(app, ["replay", str(run), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert {name: (each["found"], each["sent"]) for name, each in said["signals"].items()} == {
        "traces": (len(spans(run)), 0),
        "metrics": (len(points(run)), 0),
        "logs": (len(records(run)), 0),
    }
    plain = CliRunner().invoke(app, ["replay", str(run), "--dry-run"])
    assert f"{len(spans(run))} spans" in plain.output
    assert "would be sent" in plain.output


def test_a_line_in_the_middle_that_is_no_request_is_a_finding(run: Path) -> None:
    path = run / "logs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"no": "request"}\n', "{half a li\n", *lines[1:]]))
    done = CliRunner().invoke(app, ["replay", str(run), "--dry-run"])
    assert done.exit_code == 1
    assert "logs.jsonl, line 2:" in done.output
    assert "logs.jsonl, line 3:" in done.output


def test_nothing_that_says_where_to_send_is_an_error_with_the_fix(run: Path) -> None:
    done = CliRunner().invoke(app, ["replay", str(run)])
    assert isinstance(done.exception, ConfigurationError)
    assert "--endpoint" in str(done.exception)


def test_a_folder_without_files_says_what_is_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in (
        (tmp_path / "empty", "no traces.jsonl"),
        (tmp_path / "no", "is no folder"),
        (run.parent, run.name),
    ):
        done = CliRunner().invoke(app, ["replay", str(folder), "--dry-run"])
        assert isinstance(done.exception, ConfigurationError)
        assert said in str(done.exception)
