"""Many events at once: no lifecycle event is lost, every trace is complete, and memory stays flat."""

import re
import signal
import threading
import tracemalloc
from pathlib import Path
from time import sleep

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


def test_a_process_that_ends_before_a_slow_backend_is_done_says_what_is_left(tmp_path: Path) -> None:
    status, _, err = finish(script(_BURST.replace("NUMBER", "1_000").replace("SECONDS", "1"), folder=tmp_path))
    assert status == 0
    (left,) = re.findall(r"Backend 'slow' has (\d+) items left after 1 s\..*limits\.exit_timeout_seconds", err)
    # Of the events of the run itself, some are left too; what was taken from the queue may still be processed.
    assert 1_000 <= int(left) + len(_seen(tmp_path)) <= 1_010


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
