"""What watching costs is measured, and told with the steps that are sampled."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.optim import SGD

from nissa.gradients.overhead import HookTimer, OverheadWindow, ThreadCpuUsage, thread_times
from nissa.hub.stopwatch import Stopwatch
from nissa.kernels.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

SECOND = 1_000_000_000


class Ticks:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture
def stopwatch(clock: Ticks) -> Stopwatch:
    return Stopwatch(clock)


def test_a_window_tells_the_share_of_time_since_the_last(clock: Ticks, stopwatch: Stopwatch) -> None:
    window = OverheadWindow(stopwatch, now=clock)
    told = []
    for ours in (5, 30, 0):
        clock.now += 100 - ours
        with stopwatch.own:
            clock.now += ours
            told.append(window.close())  # with the block under way, which has just ended
    assert told == [None, 0.3, 0.0]


def test_a_window_adds_what_our_threads_took(clock: Ticks, stopwatch: Stopwatch) -> None:
    window = OverheadWindow(stopwatch, background=lambda: 0.25, now=clock)
    window.close()
    clock.now += 90
    with stopwatch.own:
        clock.now += 10
    assert window.close() == pytest.approx(0.35)


def test_another_thread_begins_a_window_of_its_own(clock: Ticks, stopwatch: Stopwatch) -> None:
    window = OverheadWindow(stopwatch, now=clock)
    window.close()
    clock.now += 10
    told: list[float | None] = []
    thread = threading.Thread(target=lambda: told.append(window.close()))
    thread.start()
    thread.join()
    assert told == [None]


def test_a_toll_is_the_cost_of_its_blocks_and_part_of_the_thread_s(clock: Ticks, stopwatch: Stopwatch) -> None:
    hook_timer = HookTimer(stopwatch)
    with stopwatch.own:
        clock.now += 1
    for _ in range(2):
        with hook_timer:
            clock.now += 5
    assert (hook_timer.take(), hook_timer.take(), stopwatch.own.spent) == (10, 0, 11)


class Threads:
    """A process and two threads of ours, which take as much as they are told to."""

    def __init__(self, cores: int) -> None:
        self.now = self.process = 0
        self.load = 0.0
        self.threads = {1: 0, 2: 0}
        self.background = ThreadCpuUsage(
            load=lambda: self.load,
            cpu=lambda: dict(self.threads),
            process=lambda: self.process,
            now=lambda: self.now,
            cores=cores,
        )

    def go(self, *, busy: float, ours: float, seconds: float = 1) -> None:
        self.now += round(seconds * SECOND)
        self.process += round(busy * seconds * SECOND)
        self.threads[1] += round(ours * seconds * SECOND)


def test_where_cores_are_busy_our_threads_count_in_full() -> None:
    machine = Threads(cores=2)
    machine.go(busy=2.0, ours=0.1)
    assert machine.background.share() == pytest.approx(0.1)


def test_where_cores_are_idle_our_threads_hold_up_little() -> None:
    machine = Threads(cores=16)
    machine.go(busy=1.6, ours=0.1)
    assert machine.background.share() == pytest.approx(0.01)


def test_cores_that_others_keep_busy_are_not_free() -> None:
    machine = Threads(cores=16)
    machine.load = 0.5
    machine.go(busy=1.6, ours=0.1)
    assert machine.background.share() == pytest.approx(0.05)
    machine.load = 4.0
    machine.go(busy=1.6, ours=0.1)
    assert machine.background.share() == pytest.approx(0.1)


@pytest.mark.parametrize(("told", "cores"), [("50000 100000", 0.5), ("max 100000", None), ("", None)])
def test_a_quota_bounds_the_cores(tmp_path: Path, told: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(told)
    unbound = usable_cores(tmp_path / "none")
    assert usable_cores(tmp_path / "cpu.max") == (unbound if cores is None else cores)


def test_threads_are_looked_at_four_times_a_second_at_most() -> None:
    machine = Threads(cores=1)
    machine.go(busy=1.0, ours=0.1)
    assert machine.background.share() == pytest.approx(0.1)
    machine.go(busy=1.0, ours=0.5, seconds=0.1)
    assert machine.background.share() == pytest.approx(0.1)
    machine.go(busy=1.0, ours=0.5, seconds=0.2)
    assert machine.background.share() == pytest.approx(0.5)


def test_a_thread_that_ended_took_no_negative_time() -> None:
    machine = Threads(cores=1)
    machine.go(busy=1.0, ours=0.5)
    machine.background.share()
    del machine.threads[1]
    machine.threads[3] = 0
    machine.now += SECOND
    machine.process += SECOND
    assert machine.background.share() == 0.0


def test_what_threads_take_is_told_for_each_sample() -> None:
    machine = Threads(cores=1)
    assert machine.background.cost() == 0.0
    for _ in range(10):
        machine.background.sampled()
    machine.go(busy=1.0, ours=0.2)
    assert machine.background.cost() == pytest.approx(0.02 * SECOND)


def test_cpu_time_of_our_threads_is_found() -> None:
    began, end = thread_times(), threading.Event()

    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        end.wait(10)

    ours = threading.Thread(target=work, name="nissa-of-a-test")
    other = threading.Thread(target=end.wait, args=(10,), name="of-a-user")
    ours.start()
    other.start()
    try:
        deadline = time.monotonic() + 10
        while thread_times().get(ours.native_id or 0, 0) < 50_000_000 and time.monotonic() < deadline:
            time.sleep(0.005)
        found = thread_times()
    finally:
        end.set()
        ours.join()
        other.join()
    assert found.keys() - began.keys() == {ours.native_id}
    assert 50_000_000 <= found[ours.native_id or 0] < 5_000_000_000


def model() -> tuple[torch.nn.Linear, SGD]:
    network = torch.nn.Linear(3, 1)
    return network, SGD(network.parameters(), lr=0.1)


def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()


def test_sampled_steps_tell_of_overhead_and_interval(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__every_n_steps=2)
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    for _ in range(6):
        step(network, optimizer)
    told = [each.overhead for each in lab.steps]
    assert [each is None for each in told] == [True, True, False, True, False, True]
    assert all(0 < each < 1 for each in told if each is not None)
    assert [each.sampling_interval for each in lab.steps] == [2.0, None] * 3


def test_without_gradients_overhead_is_told_now_and_then(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab("minimal")
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    for _ in range(25):
        step(network, optimizer)
    assert [each.step for each in lab.steps if each.overhead is not None] == [10, 20]
    assert {each.sampling_interval for each in lab.steps} == {None}


def test_overhead_is_the_environment_s_and_told_by_its_first_optimizer(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab()
    pairs = {name: model() for name in ("first", "second")}
    for name, (network, optimizer) in pairs.items():
        lab.env.watch(network, optimizer, name=name)
    for _ in range(3):
        for network, optimizer in pairs.values():
            step(network, optimizer)
    assert {each.model_name for each in lab.steps if each.overhead is not None} == {"first"}
    assert {each.model_name for each in lab.steps if each.sampling_interval is not None} == {"first", "second"}


def test_hooks_losses_and_events_are_counted(lab: "Lab") -> None:
    timer = lab.runtime.stopwatch.own
    network, optimizer = model()
    lab.env.watch(network, optimizer)
    seen = []
    for act in (
        lambda: step(network, optimizer),
        lambda: lab.env.log_loss(1.0),
        lambda: lab.env.germinate("s"),
        lambda: lab.hub.emit({"event_type": "ANYTHING"}),
        lambda: lab.env.validate(loss=1.0),
        lambda: lab.env.clip_grad_norm_(network.parameters(), 1.0),
    ):
        before = timer.spent
        act()
        seen.append(timer.spent - before)
    assert all(seen)


def test_waits_of_a_validation_are_not_counted(lab: "Lab", monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_timeout: float) -> bool:
        time.sleep(0.2)
        return True

    monkeypatch.setattr(lab.runtime.readback, "flush", wait)
    lab.env.validate(loss=1.0)
    monkeypatch.undo()
    assert 0 < lab.runtime.stopwatch.own.spent < 0.2 * SECOND
