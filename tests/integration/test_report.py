"""Reports of runs as they really are: still going, and killed."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from nissa.recordings import read
from nissa.report.run_summary import RunSummary
from nissa.report.seed_timelines import OPEN
from tests.support import finish, nissa, only_run, script, spans, until

pytestmark = pytest.mark.usefixtures("patient")

_ENDLESS = """
    import time, nissa
    from nissa import Stage
    from tests.toys import Toy

    toy = Toy()
    with nissa.start("diagnostic", console__enabled=False, files={"export_interval_seconds": 0.2}) as run:
        run.watch(toy.model, toy.optimizer)
        run.germinate("seed-1", blueprint="conv", slot="r0c0").advance(Stage.TRAINING)
        for number in range(10 ** 9):
            with run.epoch(number):
                run.validate(loss=toy.step(run), accuracy=0.5)
                time.sleep(0.02)
"""


def report(run: Path) -> dict[str, Any]:
    done = nissa("report", str(run), "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_run_can_be_reported_while_it_goes_on_and_after_it_was_killed(tmp_path: Path) -> None:
    process = script(_ENDLESS, folder=tmp_path)
    runs = tmp_path / "nissa-runs"
    try:
        until(lambda: runs.is_dir() and any(runs.glob("*/traces.jsonl")), "files")
        run = only_run(tmp_path)

        def exported() -> bool:
            assert process.poll() is None, finish(process)[2]
            return any(span.name == "validation" for span in _spans(run)) and (run / "metrics.jsonl").stat().st_size > 0

        until(exported, "a metric")
        going = report(run)
    finally:
        process.send_signal(signal.SIGKILL)
        finish(process)
    killed = report(run)
    assert (going["status"], killed["status"]) == ("running", "killed")
    for told in (going, killed):
        assert told["seeds"] == 1
        assert told["points"] > 0
    assert killed["narratives"] >= going["narratives"] > 0
    (life,) = RunSummary(read(run), "r").timelines
    assert (life.outcome, life.stages[-1].end, life.blueprint) == (OPEN, None, "conv")


def _spans(run: Path) -> list[Any]:
    try:
        return list(spans(run))
    except json.JSONDecodeError:  # the last line is being written
        return []
