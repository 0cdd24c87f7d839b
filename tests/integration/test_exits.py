"""However a process ends, its telemetry is told, and the way it ends is not changed."""

import signal
import time
from pathlib import Path

import pytest

from tests.integration.absent import collector
from tests.integration.outcomes import latest_sums, outcomes
from tests.support import finish, lines, only_run, points, script, spans, until

_TRAIN = """
    import os, signal, sys, time
    import torch, nissa
    from nissa import Stage
    from tests.toys import Toy

    toy = Toy()
    model, optimizer, step = toy.model, toy.optimizer, toy.step
"""


def _run(body: str, folder: Path, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    return finish(script(_TRAIN + body, folder=folder, environ=environ, unload=True))


def test_a_run_without_with_or_close_is_ended_at_exit(tmp_path: Path) -> None:
    body = """
    run = nissa.start("diagnostic")
    run.watch(model, optimizer)
    run.germinate("seed-1", blueprint="conv").advance(Stage.TRAINING)
    step(run)
    """
    status, _, err = _run(body, tmp_path)
    assert status == 0, err
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted"}
    assert points(only_run(tmp_path), "nissa.gradient.norm")


def test_an_exception_keeps_its_traceback_and_status_and_interrupts_the_seeds(tmp_path: Path) -> None:
    body = """
    with nissa.start("standard") as run:
        seed = run.germinate("seed-1", blueprint="conv")
        done = run.germinate("seed-2", blueprint="norm")
        done.cull(reason="no improvement")
        with run.epoch(0):
            raise ValueError("the user's own")
    """
    status, _, err = _run(body, tmp_path)
    assert status == 1
    assert "ValueError: the user's own" in err
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted", "seed-2": "culled"}
    epoch = next(span for span in spans(only_run(tmp_path)) if span.name == "epoch")
    assert epoch.error


def test_the_exit_status_of_sys_exit_is_kept(tmp_path: Path) -> None:
    status, _, err = _run("    run = nissa.start()\n    sys.exit(7)\n", tmp_path)
    assert status == 7, err
    assert only_run(tmp_path).is_dir()


def test_sigterm_tells_every_span_and_the_process_still_dies_of_it(tmp_path: Path) -> None:
    body = """
    run = nissa.start("diagnostic")
    run.watch(model, optimizer)
    run.germinate("seed-1", blueprint="conv").advance(Stage.TRAINING)
    with run.epoch(0):
        while True:
            step(run)
            print("stepped", flush=True)
    """
    process = script(_TRAIN + body, folder=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("stepped"):
            break
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == -signal.SIGTERM, err
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted"}
    names = [span.name for span in spans(only_run(tmp_path))]
    assert {"seed", "seed.training", "epoch", "seed.started", "epoch.started"} <= set(names)
    assert points(only_run(tmp_path), "nissa.gradient.norm")


def test_a_handler_of_the_application_for_sigterm_is_left_alone(tmp_path: Path) -> None:
    body = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    with nissa.start() as run:
        run.germinate("seed-1")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    """
    status, _, err = _run(body, tmp_path)
    assert status == 3, err
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted"}


def test_after_close_sigterm_is_as_it_was_before(tmp_path: Path) -> None:
    body = """
    before = signal.getsignal(signal.SIGTERM)
    with nissa.start() as run:
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    """
    status, _, err = _run(body, tmp_path)
    assert status == 0, err


@pytest.mark.parametrize("after", [1, 40, 200])
def test_the_files_of_a_killed_run_still_parse_and_hold_what_had_ended(tmp_path: Path, after: int) -> None:
    body = """
    run = nissa.start("research", files={"export_interval_seconds": 0.1})
    run.watch(model, optimizer)
    run.germinate("seed-1", blueprint="conv").advance(Stage.TRAINING)
    run.flush()
    with run.epoch(0):
        print("ready", flush=True)
        while True:
            step(run)
    """
    process = script(_TRAIN + body, folder=tmp_path)
    assert process.stdout is not None
    until(lambda: "ready" in process.stdout.readline() if process.stdout else None, "the script")
    time.sleep(1)  # what was emitted a second ago survives
    metrics = only_run(tmp_path) / "metrics.jsonl"
    until(lambda: metrics.stat().st_size > after * 1000, "metrics")
    process.kill()
    status, _, _ = finish(process)
    assert status == -signal.SIGKILL
    for name in ("traces.jsonl", "metrics.jsonl", "logs.jsonl"):
        assert lines(only_run(tmp_path) / name)
    names = {span.name for span in spans(only_run(tmp_path))}
    assert {"seed.started", "seed.germinated", "seed.training.started", "epoch.started"} <= names


@pytest.mark.parametrize("spooled", [False, True], ids=["files", "spool"])
def test_a_process_that_vanishes_leaves_its_events_and_the_counters_that_they_changed(
    tmp_path: Path, spooled: bool
) -> None:
    body = """
    run = nissa.start("standard", console__enabled=False)
    time.sleep(0.3)  # metrics are next written in 5 s
    for number in range(7):
        run.germinate(f"seed-{number}", blueprint="conv").cull(reason="test")
    time.sleep(1)
    os._exit(3)
    """
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if spooled else {}
    status, _, err = _run(body, tmp_path, nowhere)
    assert status == 3, err
    run = only_run(tmp_path)
    assert outcomes(run, spooled=spooled) == {f"seed-{number}": "culled" for number in range(7)}
    assert latest_sums(run, "nissa.seed.transitions", spooled=spooled) == {("germinated", "culled"): 7}


def test_forked_workers_export_nothing_and_training_goes_on(tmp_path: Path) -> None:
    body = """
    from torch.utils.data import DataLoader, TensorDataset

    with nissa.start("diagnostic", run_id="forked", files={"export_interval_seconds": 0.2}) as run:
        run.watch(model, optimizer)
        loader = DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=8, num_workers=2)
        with run.epoch(0):
            for (batch,) in loader:
                loss = model(batch).square().mean()
                optimizer.zero_grad(); loss.backward(); run.log_loss(loss); optimizer.step()
                time.sleep(0.1)
        pid = os.fork()
        if pid == 0:
            run.germinate  # the child holds the run, and must stay silent at its own exit
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    status, _, err = _run(body, tmp_path)
    assert status == 0, err
    steps = points(only_run(tmp_path), "nissa.step")
    assert sorted(point.value for point in steps) == list(range(8))
    assert [span.name for span in spans(only_run(tmp_path))].count("epoch") == 1


def test_a_forked_child_starts_a_run_of_its_own_or_is_warned_once(tmp_path: Path) -> None:
    body = """
    import logging
    logging.basicConfig()
    run = nissa.start("diagnostic", run_id="parent")
    run.watch(model, optimizer)
    with run.epoch(0):
        step(run)
    pid = os.fork()
    if pid == 0:
        for number in (1, 2):  # on the parent's run
            with run.epoch(number):
                step(run)
        assert nissa.current_run() is None
        with nissa.start("diagnostic", run_id="child") as own:
            assert nissa.current_run() is own
            own.watch(model, optimizer)
            with own.epoch(3):
                step(own)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert nissa.current_run() is run
    with run.epoch(4):
        step(run)
    """
    status, _, err = _run(body, tmp_path)
    assert status == 0, err
    assert err.count("call nissa.start() here") == 1, err
    found = {
        name: [span.attributes["nissa.epoch"] for span in spans(tmp_path / "nissa-runs" / name) if span.name == "epoch"]
        for name in ("parent", "child")
    }
    assert found == {"parent": [0, 4], "child": [3]}


def test_a_second_process_continues_a_seed_in_the_same_trace(tmp_path: Path) -> None:
    first = """
    import json
    with nissa.start("standard", run_id="first") as run:
        seed = run.germinate("seed-1", blueprint="conv", slot="r0c0", parameters=10)
        seed.advance(Stage.TRAINING)
        json.dump(seed.state_dict(), open("seed.json", "w"))
    """
    second = """
    import json
    with nissa.start("standard", run_id="second") as run:
        seed = run.resume_seed(json.load(open("seed.json")))
        seed.advance(Stage.BLENDING, alpha=0.2)
        seed.fossilize(improvement=0.01)
    """
    for body in (first, second):
        status, _, err = _run(body, tmp_path, {"PYTHONHASHSEED": "0"})
        assert status == 0, err
    before, after = (spans(tmp_path / "nissa-runs" / name) for name in ("first", "second"))
    root = next(span for span in before if span.name == "seed")
    resumed = next(span for span in after if span.name == "seed")
    assert resumed.trace_id == root.trace_id
    assert resumed.parent_id == root.span_id
    assert resumed.span_id != root.span_id
    assert (root.attributes["nissa.seed.attempt"], resumed.attributes["nissa.seed.attempt"]) == (0, 1)
    assert resumed.attributes["nissa.seed.outcome"] == "fossilized"
    stages = [span.name for span in after if span.name.startswith("seed.") and not span.name.endswith(".started")]
    assert stages == ["seed.training", "seed.blending", "seed.probationary", "seed.fossilized"]


def test_ids_differ_between_runs_that_seed_the_global_generator_alike(tmp_path: Path) -> None:
    body = """
    import random
    random.seed(42)
    with nissa.start("standard", run_id=os.environ["WHICH"]) as run:
        run.germinate("seed-1")
        with run.epoch(0):
            pass
    """
    for which in ("a", "b"):
        status, _, err = _run(body, tmp_path, {"WHICH": which})
        assert status == 0, err
    ids = [span.span_id for which in ("a", "b") for span in spans(tmp_path / "nissa-runs" / which)]
    assert len(ids) == len(set(ids)) > 4


_STUCK = """
    import ctypes

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, in which the tests may run, would have it ignored
    run = nissa.start("standard", console__enabled=False, limits__exit_timeout_seconds=3)
    run.watch(model, optimizer)
    run.germinate("seed-1", blueprint="conv").advance(Stage.TRAINING)
    step(run)
    print("ready", flush=True)
"""
_MUTEX = """
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_init(mutex, None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # a deadlock in C code: no Python handler runs any more
"""
_SLOW_CALL = """
    libc = ctypes.CDLL(None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # another thread gets it, so that it interrupts no sleep
    libc.sleep(2)
    for _ in range(100):  # the end of the run takes as long as the collector is given
        run.germinate("seed-2")
        print("went on", flush=True)
        time.sleep(0.05)
    sys.exit(3)
"""
_BARRIER = """
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=0, world_size=2)
    dist.barrier()  # the other rank never comes to it
"""
_OTHER_RANK = """
    import os, time
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=1, world_size=2)
    print("ready", flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_stuck_in_c_code_ends_on_a_signal_and_keeps_its_telemetry(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = script(_TRAIN + _STUCK + _MUTEX, folder=tmp_path)
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    time.sleep(0.5)
    sent = time.monotonic()
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == -number, err
    assert time.monotonic() - sent < 3 + 40  # the exit timeout, and what a busy machine may add
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted"}


def test_training_does_not_go_on_while_another_thread_ends_the_run(tmp_path: Path) -> None:
    with collector("silent", "http/protobuf") as endpoint:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        process = script(_TRAIN + _STUCK + _SLOW_CALL, folder=tmp_path, environ=environ)
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        status, out, err = finish(process)
    assert status == -signal.SIGTERM, err
    assert "went on" not in out
    assert outcomes(only_run(tmp_path), spooled=True) == {"seed-1": "interrupted"}


def test_a_rank_that_waits_in_a_barrier_ends_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = script(_OTHER_RANK.replace('"store"', '"../store"'), folder=tmp_path / "other")
    process = script(_TRAIN + _STUCK + _BARRIER, folder=tmp_path)
    assert other.stdout is not None
    assert "ready" in other.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    other.kill()
    finish(other)
    assert status == -signal.SIGTERM, err
    assert outcomes(only_run(tmp_path)) == {"seed-1": "interrupted"}


def test_signals_of_forked_workers_end_nothing_in_the_parent(tmp_path: Path) -> None:
    body = """
    with nissa.start("standard", console__enabled=False) as run:
        seed = run.germinate("seed-1", blueprint="conv")
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
        time.sleep(0.2)
        for child in children:
            os.kill(child, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        time.sleep(1.5)
        seed.cull(reason="test")
    """
    status, out, err = _run(body, tmp_path)
    assert status == 0, err
    assert out.split() == ["-15"] * 3
    assert outcomes(only_run(tmp_path)) == {"seed-1": "culled"}
