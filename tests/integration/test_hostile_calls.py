"""Hostile names, reasons, payloads and events in a real run: console, log, files and page are safe and complete."""

import io
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nissa
from nissa import Backend, ConsoleBackend, EventType, FileBackend, GateResult, Stage
from nissa.report import write_report
from tests import hostile
from tests.cases import for_each
from tests.support import records, spans

EVIL = "".join(hostile.UNSAFE)


def unsafe_lines(folder: Path) -> list[str]:
    """Return what is unsafe in the files of a run: text, or a line that is not strict JSON."""
    found = []
    for path in folder.glob("*.jsonl"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            value = json.loads(line, parse_constant=pytest.fail)
            found += [f"{path.name}:{number}: {text!r}" for text in _texts(value) if not hostile.is_safe(text)]
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for key, entry in value.items() for each in (key, *_texts(entry))]
    if isinstance(value, list):
        return [each for entry in value for each in _texts(entry)]
    return [value] if isinstance(value, str) else []


def grow(run: nissa.Run, mark: Any, number: int) -> None:
    """Let a seed live with hostile text in all that a caller can choose."""
    seed = run.environment(mark).germinate(f"s{number}{mark}", blueprint=mark, slot=mark, parameters=3)
    seed.gate(GateResult(mark, passed=False, checks_failed=(mark, "gain"), message=str(mark)))
    seed.advance(Stage.TRAINING)
    seed.isolation_violation(str(mark))
    seed.cull(reason=mark)


def failing_epoch(
    run: nissa.Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, error: type[Exception]
) -> None:
    with run.epoch(0):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        run.validate(loss=1.0, accuracy=0.5, per_class_accuracy={f"class{EVIL}": 0.5, EVIL: 0.25})
        with run.checkpoint(f"p{EVIL}"):
            pass
        raise error(EVIL)


def test_hostile_text_is_safe_wherever_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    console = io.StringIO()
    error = type(f"Error{EVIL.replace(chr(0), '')}".encode("utf-8", "replace").decode(), (Exception,), {})
    model = torch.nn.Module()
    model.add_module(f"layer{EVIL}".replace(".", ""), torch.nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    backends: list[Backend] = [ConsoleBackend(console), FileBackend("events.jsonl")]
    with (
        caplog.at_level(logging.DEBUG),
        nissa.start(
            "diagnostic", service_name=f"svc{EVIL}", run_id="r", backends=backends, strict=False, console__enabled=False
        ) as run,
    ):
        run.watch(model, optimizer)
        for number, mark in enumerate([EVIL, EVIL.encode("utf-8", "replace"), "\ud800" * 1_000_000]):
            grow(run, mark, number)
        with pytest.raises(error):
            failing_epoch(run, model, optimizer, error)
        run.hub.emit({"event_type": f"OWN{EVIL}", "message": EVIL, "data": {EVIL: EVIL, "self": hostile.itself()}})
        run.log_loss(EVIL)  # type: ignore[arg-type]  # as callers do

    folder = Path("nissa-runs/r")
    assert not unsafe_lines(folder)
    assert not unsafe_lines(Path())
    assert all(hostile.is_safe(line) for line in console.getvalue().split("\n"))
    assert all(hostile.is_safe(record.getMessage()) for record in caplog.records if record.name == "nissa")
    roots = [span for span in spans(folder) if span.name == "seed"]
    assert len(roots) == 3
    assert all(span.attributes["nissa.seed.cull_reason"] for span in roots)
    (own,) = [each for each in records(folder) if "own" in each["eventName"]]
    assert {"key": "nissa.event.truncated", "value": {"boolValue": True}} in own["attributes"]
    written = write_report(folder)
    assert (written.seeds, written.damaged) == (3, ())
    page = Path(written.path).read_text(encoding="utf-8")
    assert all(hostile.is_safe(line) for line in page.replace("\t", " ").split("\n"))


def test_events_of_all_kinds_with_hostile_data_cause_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """The fixture `no_contained_fault` fails for a fault of a backend."""
    data = st.dictionaries(st.sampled_from(DATA) | hostile.texts, hostile.nested, max_size=4)
    with nissa.start(
        "minimal", run_id="r", strict=False, backends=[ConsoleBackend(io.StringIO())], console__enabled=False
    ) as run:

        @given(st.sampled_from([*EventType]), st.sampled_from("abc"), data, st.integers(1, 2**63 - 1))
        @settings(max_examples=60, suppress_health_check=list(HealthCheck))
        def check(event_type: str, seed_id: str, data: dict[str, Any], at: int) -> None:
            run.hub.emit({"event_type": event_type, "seed_id": seed_id, "data": data, "time_unix_nano": at})

        check()
        assert run.flush(60)
    assert not [each for each in run.hub.deliveries() if each.outcome in {"failed", "dropped"}]
    assert not unsafe_lines(Path("nissa-runs/r"))
    assert all(span.start <= span.end for span in spans(Path("nissa-runs/r")))
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]
    write_report(Path("nissa-runs/r"))


DATA = [
    *(
        "to",
        "from",
        "gate",
        "passed",
        "score",
        "checks_failed",
        "checks_passed",
        "reason",
        "blueprint_id",
        "parameters",
    ),
    *("epochs_total", "alpha", "improvement", "error", "path", "started", "trace_id", "span_id", "step", "flag", "up"),
    *("seeds", "narrative", "train_loss", "validation_accuracy", "seed_state", "adopted", "epoch", "blending_delta"),
]


def test_a_seed_whose_clock_runs_backwards_has_no_negative_span() -> None:
    with nissa.start("minimal", console__enabled=False, run_id="r") as run:
        for at, stage in enumerate(["germinated", "training", "blending", "culled"]):
            kind = "SEED_GERMINATED" if at == 0 else "SEED_STAGE_CHANGED"
            time = 10**18 - at * 10**9
            run.hub.emit({"event_type": kind, "seed_id": "s", "data": {"to": stage}, "time_unix_nano": time})
    found = spans(Path("nissa-runs/r"))
    assert {span.name for span in found} >= {"seed", "seed.training", "seed.blending"}
    assert all(span.start <= span.end for span in found)


def test_a_watch_has_a_printable_name() -> None:
    model = torch.nn.Linear(1, 1)
    with nissa.start("minimal", console__enabled=False) as run:
        for name in ("a\nb", "", "x" * 1_000, b"x", 5):
            with pytest.raises(nissa.WatchError, match="name="):
                run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), name=name)  # type: ignore[arg-type]


BAD_IDS = ["../../../x", "/etc/x", "..", ".", "a/b", "a\\b", "a\nb", "\x1b[2J", "x" * 300, "é" * 100, " x", "\udcff"]


@for_each("run_id", [*BAD_IDS, "a\0b", b"x", 5, Path("x")], ids=repr)
def test_a_run_id_that_is_no_name_of_a_folder_is_refused_with_the_fix(run_id: Any) -> None:
    with pytest.raises(nissa.ConfigurationError, match=r"(?s)^run_id .*Pass another run_id"):
        nissa.start(run_id=run_id)
    assert nissa.current_run() is None
    assert not list(Path().rglob("*.jsonl"))


@pytest.mark.parametrize(("variable", "fix"), [("NISSA_RUN_ID", "unset"), ("TORCHELASTIC_RUN_ID", "--rdzv-id")])
def test_a_variable_with_such_a_run_id_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, variable: str, fix: str
) -> None:
    for run_id in BAD_IDS:
        monkeypatch.setenv(variable, run_id)
        with pytest.raises(nissa.ConfigurationError, match=rf"(?s)^{variable} .*{fix}"):
            nissa.start()
    assert not list(Path().rglob("*.jsonl"))


@for_each("run_id", ["20251130-a.b_c", "Übung 1", "job:5", "-x", "学習"])
def test_other_run_ids_are_names_of_folders(run_id: str) -> None:
    with nissa.start("minimal", run_id=run_id, console__enabled=False) as run:
        assert run.directory == Path("nissa-runs").absolute() / run_id


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_a_file_of_the_run_folder_that_leads_elsewhere_is_refused(kind: str) -> None:
    folder, target = Path("nissa-runs/r"), Path("target")
    folder.mkdir(parents=True)
    target.write_text("precious")
    path = folder / "logs.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target.absolute() if kind == "link" else Path("nowhere").absolute())
    with pytest.raises(nissa.ConfigurationError, match=r"link|regular file|directory"):
        nissa.start("minimal", run_id="r", console__enabled=False)
    assert target.read_text() == "precious"
    assert not Path("nowhere").exists()


def test_of_threads_that_start_a_run_at_once_one_succeeds() -> None:
    for _ in range(5):
        nissa.reset_hub()
        barrier = threading.Barrier(4)
        outcomes: list[Any] = []

        def start(barrier: threading.Barrier = barrier, outcomes: list[Any] = outcomes) -> None:
            barrier.wait()
            try:
                outcomes.append(nissa.start("minimal", console__enabled=False))
            except Exception as error:  # noqa: BLE001 - looked at below
                outcomes.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(each).__name__ for each in outcomes) == ["Run", *["RunActiveError"] * 3]
        (run,) = [each for each in outcomes if isinstance(each, nissa.Run)]
        assert nissa.current_run() is run
        run.close()


def test_threads_get_one_hub() -> None:
    for _ in range(20):
        nissa._hubs.clear()
        barrier = threading.Barrier(4)
        hubs: list[nissa.NissaHub] = []

        def get(barrier: threading.Barrier = barrier, hubs: list[nissa.NissaHub] = hubs) -> None:
            barrier.wait()
            hubs.append(nissa.get_hub())

        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, hubs))) == 1
