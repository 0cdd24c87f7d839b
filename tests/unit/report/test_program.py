"""The section about the run itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nissa.recordings import read
from nissa.report.page import page
from nissa.report.program import program
from nissa.report.run_summary import RunSummary
from nissa.report.writer import sections
from tests import otlp
from tests.recorded import HOSTILE, at

DESCRIPTION = {
    "process.command_args": ["python", "train.py", "--name", "run 1", "--hf-token", "***"],
    "process.working_directory": "/data",
    "vcs.ref.head.revision": "0123456789" * 4,
    "vcs.ref.head.name": "topic/one",
    "process.runtime.version": "3.12.1",
    "host.name": "gpu-1",
    "host.cpu.model.name": "EPYC",
    "nissa.cpu.count": 64,
    "nissa.package.torch": "2.9.0",
    "nissa.package.cuda": "13.0",
}


def run_of(folder: Path, *descriptions: Mapping[str, Any]) -> RunSummary:
    config = {"nissa.run.config.optimizer.lr": 0.1}
    logs = [
        otlp.logs(otlp.record("nissa.event.training_started", at(0), config), resource={"nissa.profile": "standard"})
    ]
    for rank, told in enumerate(descriptions):
        about = {"service.instance.id": str(rank), "dl.rank": rank}
        logs.append(otlp.logs(otlp.record("nissa.event.process_described", at(0), dict(told)), resource=about))
    memory = [
        otlp.gauge("process.memory.usage", [(at(0), 2.0**30), (at(5), 3 * 2.0**30)], {}),
        *(
            otlp.gauge("nissa.device.memory", [(at(0), size * 2.0**30)], {
                "nissa.device": "cuda:0", "nissa.device.name": "H200", "nissa.memory.state": state,
            })
            for state, size in (("allocated", 2), ("total", 140))
        ),
    ]  # fmt: skip
    return RunSummary(read(otlp.write(folder, logs=logs, metrics=[otlp.metrics(*memory)])), "r")


def cells(run: RunSummary) -> dict[str, dict[str, str]]:
    return {table.title: dict(row.cells for row in table.rows) for table in program(run).tables}  # type: ignore[misc]


def test_configuration_program_machine_and_packages_are_shown(tmp_path: Path) -> None:
    found = cells(run_of(tmp_path / "r", DESCRIPTION))
    assert found["Configuration"] == {"optimizer.lr": "0.1", "nissa profile": "standard"}
    assert found["Program"]["command line"] == "python train.py --name 'run 1' --hf-token ***"
    assert found["Program"]["git commit"] == "0123456789" * 4
    assert found["Program"]["git branch"] == "topic/one"
    assert found["Machine"]["host"] == "gpu-1"
    assert found["Machine"]["device"] == "cuda:0: H200"
    assert found["Packages"] == {"torch": "2.9.0", "cuda": "13.0"}


def test_what_differs_between_ranks_is_shown_for_each(tmp_path: Path) -> None:
    found = cells(run_of(tmp_path / "r", DESCRIPTION, DESCRIPTION | {"host.name": "gpu-2"}))
    assert found["Machine"]["host"] == "gpu-1 / gpu-2"
    assert found["Program"]["Python"] == "3.12.1"


def test_memory_is_in_gibibytes(tmp_path: Path) -> None:
    process, device = program(run_of(tmp_path / "r", DESCRIPTION)).panels
    (line,) = process.variants[0].figure.data
    assert list(line.y) == [1.0, 3.0]
    assert [(trace.name, list(trace.y)) for trace in device.variants[0].figure.data] == [
        ("cuda:0 · allocated", [2.0]),
        ("cuda:0 · total", [140.0]),
    ]


def test_a_run_without_a_description_says_so(tmp_path: Path) -> None:
    section = program(run_of(tmp_path / "r"))
    assert "process.describe is off" in section.note
    assert [table.title for table in section.tables] == ["Configuration"]
    without = {key: value for key, value in DESCRIPTION.items() if not key.startswith("vcs.")}
    assert cells(run_of(tmp_path / "s", without))["Program"]["git commit"] == "no repository was found"


def test_no_fact_is_markup(tmp_path: Path) -> None:
    told = {key: HOSTILE for key in DESCRIPTION if key != "nissa.cpu.count"} | {"process.command_args": [HOSTILE]}
    run = run_of(tmp_path / "r", told)
    text = page(run, sections(run))
    assert "<img" not in text
    assert text.count("</script>") == 3
