"""What a run records of its process: enough to compare runs, no credentials, and nothing that training waits for."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import nissa
from nissa.recordings import read
from nissa.report import write_report
from nissa.report.run_summary import RunSummary
from nissa.run import process_description
from nissa.semconv import attributes as attr
from tests.cases import for_each
from tests.support import finish, only_run, points, script

_TRAIN = """
    import os, signal, sys
    import nissa
    from tests.toys import Toy

    toy = Toy()
    run = nissa.start()
    run.watch(toy.model, toy.optimizer)
    toy.step(run)
    run.flush()
"""

ENDS = [
    ("", "completed", 0),
    ("    sys.exit(0)\n", "completed", 0),
    ("    sys.exit(3)\n", "failed", 3),
    ("    1 / 0\n", "failed", 1),
    ("    raise KeyboardInterrupt\n", "interrupted", -2),
    ("    os.kill(os.getpid(), signal.SIGTERM)\n", "interrupted", -15),
    ("    os.kill(os.getpid(), signal.SIGKILL)\n", "killed", -9),
    ("    os._exit(0)\n", "killed", 0),
    ("    raise SystemExit(3)\n", "ended", 3),
    ("    run.close()\n    sys.exit(3)\n", "ended", 3),
]


@for_each("end", ENDS, ids=str)
def test_a_report_says_completed_only_where_the_status_was_0(
    end: tuple[str, str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    body, word, status = end
    folder = tmp_path_factory.mktemp("run")
    found, _, err = finish(script(_TRAIN + body, folder=folder, unload=True))
    assert found == status, err
    run = RunSummary(read(only_run(folder)), "r")
    assert run.ending.word == word, run.ending.reason
    assert not (word == "completed" and status)


def test_a_run_records_its_process_once_and_the_report_shows_it(tmp_path: Path) -> None:
    body = _TRAIN + "    sys.exit(0)\n"
    secret = "hf_abcdefghijklmnop1234"  # noqa: S105 - of nothing
    status, _, err = finish(script(body, folder=tmp_path, environ={"HF_TOKEN": secret}, unload=True))
    assert status == 0, err
    (described,) = RunSummary(read(only_run(tmp_path)), "r").descriptions
    found = described.attributes
    assert found[f"{attr.PACKAGE}.torch"] == version("torch")
    assert found[attr.WORKING_DIRECTORY] == str(tmp_path)
    assert found[attr.COMMAND_ARGS]
    assert found[attr.HOST_NAME]
    assert found[attr.CPU_COUNT] >= 1
    page = Path(write_report(only_run(tmp_path)).path).read_text()
    for text in (
        str(found[attr.HOST_NAME]),
        "command line",
        "working directory",
        "opentelemetry-sdk",
        "no CUDA device",
    ):
        assert text in page
    assert secret not in (only_run(tmp_path) / "logs.jsonl").read_text()
    assert points(only_run(tmp_path), "process.memory.usage")


@pytest.mark.parametrize("moment", ["LogCapture", "ProcessDescription"])
def test_a_signal_during_the_start_ends_the_process_as_it_would_without_a_run(tmp_path: Path, moment: str) -> None:
    body = f"""
    import os, signal, time
    import nissa
    from nissa.run import run

    def signalled(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    run.{moment} = signalled
    nissa.start()
    """
    status, _, err = finish(script(body, folder=tmp_path, unload=True))
    assert status == -15, err
    assert RunSummary(read(only_run(tmp_path)), "r").ending.reason == "SIGTERM"


def test_the_command_line_the_description_and_the_memory_can_be_switched_off(tmp_path: Path) -> None:
    with nissa.start(run_id="a", files__directory=tmp_path, console__enabled=False, process__command_line=False):
        pass
    (found,) = RunSummary(read(tmp_path / "a"), "a").descriptions
    assert attr.COMMAND_ARGS not in found.attributes
    assert attr.HOST_NAME in found.attributes
    with nissa.start(
        run_id="b", files__directory=tmp_path, console__enabled=False, process__describe=False, process__memory=False
    ):
        pass
    assert RunSummary(read(tmp_path / "b"), "b").descriptions == []
    assert not points(tmp_path / "b", "process.memory.usage")
    assert points(tmp_path / "a", "process.memory.usage")


def test_a_file_system_that_hangs_delays_neither_the_start_nor_the_end_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_description, "_revision", lambda _: time.sleep(30))
    begun = time.monotonic()
    run = nissa.start(run_id="a", files__directory=tmp_path, console__enabled=False)
    started = time.monotonic()
    run.close()
    ended = time.monotonic()
    assert started - begun < 5  # half a minute would be the wait
    assert ended - started < 5
    assert RunSummary(read(tmp_path / "a"), "a").descriptions == []


def test_what_cannot_be_found_out_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: Any) -> Any:
        raise PermissionError("no")

    monkeypatch.setattr(process_description, "_revision", unreadable)
    with nissa.start(run_id="a", files__directory=tmp_path, console__enabled=False):
        pass
    (found,) = RunSummary(read(tmp_path / "a"), "a").descriptions
    assert attr.VCS_REVISION not in found.attributes
    assert attr.HOST_NAME in found.attributes
    assert f"{attr.PACKAGE}.torch" in found.attributes
