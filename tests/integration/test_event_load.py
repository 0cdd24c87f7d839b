"""Many events at once: no lifecycle event is lost, every trace is complete, and memory stays flat."""

import json
import re
import signal
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Any

import pytest

import nissa
from nissa import EventType, FileBackend, MemoryBackend, NissaHub, Stage
from tests.support import finish, lines, script, spans, until

_BURST = """
    import signal, sys, time
    import nissa

    class Slow:
        name = "slow"

        def __init__(self):
            self.file = open("seen.txt", "w", buffering=1)

        def emit(self, event):
            time.sleep(0.005)
            if event.epoch is not None:
                self.file.write(f"{event.epoch}\\n")

    run = nissa.start("minimal", backends=[Slow()], limits={"exit_timeout_seconds": SECONDS})
    for epoch in range(NUMBER):
        run.hub.emit({"event_type": nissa.EventType.EPOCH_COMPLETED, "epoch": epoch})
    open("emitted.txt", "w").close()
"""


class Slow:
    """Takes five milliseconds for each event."""

    def __init__(self) -> None:
        self.seen: list[int | None] = []

    def emit(self, event: nissa.TelemetryEvent) -> None:
        sleep(0.005)
        self.seen.append(event.epoch)


def _seen(folder: Path) -> list[int]:
    return list(map(int, (folder / "seen.txt").read_text().split()))


@pytest.mark.full
def test_a_burst_into_a_slow_backend_loses_no_lifecycle_event_when_the_process_ends(tmp_path: Path) -> None:
    burst = _BURST.replace("NUMBER", "5_000").replace("SECONDS", "200")
    endings = {"end": "", "exit": "    sys.exit(3)", "error": "    raise ValueError", "signal": "    time.sleep(300)"}
    processes = {}
    for name, ending in endings.items():  # at once, since each of them takes half a minute
        (tmp_path / name).mkdir()
        processes[name] = script(burst + ending, folder=tmp_path / name)
    until((tmp_path / "signal/emitted.txt").exists, "the burst")
    processes["signal"].send_signal(signal.SIGTERM)
    ends = {name: finish(process, timeout=150) for name, process in processes.items()}
    assert {name: status for name, (status, _, _) in ends.items()} == {
        "end": 0,
        "exit": 3,
        "error": 1,
        "signal": -signal.SIGTERM,
    }
    for name in endings:
        assert _seen(tmp_path / name) == list(range(5_000)), name
        assert "lost" not in ends[name][2]


@pytest.mark.parametrize(
    ("ending", "status"),
    [("", 0), ("    sys.exit(3)", 3), ("    raise ValueError", 1), ("    time.sleep(300)", -signal.SIGTERM)],
    ids=["end", "exit", "error", "signal"],
)
def test_a_process_that_ends_before_a_slow_backend_is_done_saves_what_is_left(
    ending: str, status: int, tmp_path: Path
) -> None:
    process = script(_BURST.replace("NUMBER", "5_000").replace("SECONDS", "1") + ending, folder=tmp_path)
    if status < 0:
        until((tmp_path / "emitted.txt").exists, "the burst")
        process.send_signal(-status)
    found, _, err = finish(process)
    assert found == status
    (left, number, path) = re.findall(
        r"Backend 'slow' has (\d+) items left after 1 s\. Its (\d+) lifecycle events were written to (\S+);.*"
        r"limits\.exit_timeout_seconds",
        err,
    )[0]
    saved = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert int(left) >= int(number) == len(saved)
    epochs = [event["epoch"] for event in saved if "epoch" in event]
    assert epochs == list(range(5_000 - len(epochs), 5_000))
    # The backend goes on until the process ends, so that it may also have received some of those in the file.
    assert {*_seen(tmp_path), *epochs} == set(range(5_000))
    assert saved[-1]["event_type"] == nissa.EventType.TRAINING_ENDED


def test_events_that_a_hanging_backend_was_given_together_are_saved(tmp_path: Path) -> None:
    hang = threading.Event()

    class Hanging:
        name = "hanging/../backend"

        def emit(self, event: nissa.TelemetryEvent) -> None:
            """Take one event; batches are given to the other method."""

        def emit_batch(self, events: Sequence[nissa.TelemetryEvent]) -> None:
            hang.wait(len(events))

    try:
        settings: dict[str, Any] = {
            "files": {"directory": tmp_path},
            "limits": {"exit_timeout_seconds": 0.3},
            "process": {"describe": False},  # which is an event of its own
        }
        with nissa.start("minimal", run_id="r", backends=[Hanging()], **settings) as run:
            for epoch in range(100):
                run.hub.emit({"event_type": EventType.EPOCH_COMPLETED, "epoch": epoch})
                run.hub.emit({"event_type": EventType.GRADIENT_ANOMALY, "data": {"kind": "spike"}})
    finally:
        hang.set()
    (path,) = (tmp_path / "r").glob("undelivered-*.jsonl")
    saved = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [event["event_type"] for event in saved]
    assert (kinds[0], kinds[-1]) == (EventType.TRAINING_STARTED, EventType.TRAINING_ENDED)
    assert [event["epoch"] for event in saved[1:-1]] == list(range(100))
    assert path.name == "undelivered-hanging_.._backend.jsonl"


@pytest.mark.full
def test_a_burst_into_a_slow_backend_loses_no_lifecycle_event() -> None:
    hub, slow = NissaHub(), Slow()
    hub.add_backend(slow)
    for epoch in range(5_000):
        hub.emit({"event_type": EventType.EPOCH_COMPLETED, "epoch": epoch})
    assert hub.close(timeout=250)
    assert slow.seen == list(range(5_000))
    assert hub.healthy


@pytest.mark.full
def test_events_of_several_threads_reach_memory_and_file_without_a_loss(tmp_path: Path) -> None:
    hub, memory, number = NissaHub(), MemoryBackend(), 15_000
    hub.add_backend(memory)
    hub.add_backend(FileBackend(tmp_path / "events.jsonl"))

    def emit(env: int) -> None:
        for epoch in range(number):
            hub.emit({"event_type": EventType.EPOCH_COMPLETED, "env_id": env, "epoch": epoch, "data": {"loss": 0.5}})

    threads = [threading.Thread(target=emit, args=(env,)) for env in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.close(timeout=250)
    assert hub.healthy
    for env in range(4):  # in order for each thread
        assert [event.epoch for event in memory.events if event.env_id == str(env)] == list(range(number))
    assert len(lines(tmp_path / "events.jsonl")) == 4 * number


@pytest.mark.full
def test_thousands_of_seeds_over_many_environments_have_complete_traces_and_flat_memory() -> None:
    limits = {"exit_timeout_seconds": 250, "max_seeds": 500}
    with nissa.start("minimal", console__enabled=False, run_id="r", limits=limits) as run:
        before = 0
        tracemalloc.start()
        for round_ in range(32):
            for env in range(64):
                seed = run.environment(env).germinate(f"s{round_}", blueprint=f"b{round_ % 7}", slot="r0c0")
                seed.advance(Stage.TRAINING)
                seed.cull(reason="late")
            assert run.hub.flush(250)
            if round_ == 15:  # everything bounded has reached its bound
                before = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        threads = threading.active_count()
        assert grown < 1_000_000  # of 1,024 seeds; about 280 bytes each were measured
        assert threads < 20
        assert run.hub.healthy
    found = spans(Path("nissa-runs/r"))
    roots = [span for span in found if span.name == "seed"]
    assert len(roots) == len({span.trace_id for span in roots}) == 32 * 64
    for name in ("seed.germinated", "seed.training", "seed.culled"):
        assert {span.trace_id for span in found if span.name == name} == {span.trace_id for span in roots}
