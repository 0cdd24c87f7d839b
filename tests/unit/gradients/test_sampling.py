"""A run thins its own sampling under a budget, and goes back: with a clock that moves only when told to."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from nissa.gradients import sampling as module
from nissa.gradients.overhead import HookTimer, OverheadWindow, ThreadCpuUsage
from nissa.gradients.sampling import AdaptiveInterval, FixedInterval, OverheadBudget
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.stopwatch import Stopwatch

MILLISECOND = 1_000_000


class Ticks:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@dataclass
class Training:
    """A training whose steps and samples take as long as they are told to, in milliseconds."""

    share: float = 0.02
    every: int = 1
    step: float = 10.0
    sample: float = 2.0
    plain: float = 0.01
    epoch: object = None
    sampled: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.clock = Ticks()
        self.stopwatch = Stopwatch(self.clock)
        self.window = OverheadWindow(self.stopwatch, now=self.clock)
        self.hook_timer = HookTimer(self.stopwatch)
        background = ThreadCpuUsage(cpu=dict, process=int, now=self.clock, load=float)
        self.budget = OverheadBudget(
            share=self.share, background=background, error_boundary=ErrorBoundary(), now=self.clock
        )
        self.schedule: AdaptiveInterval = self.budget.schedule(self.every, None)

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.spend(self.step)
            with self.hook_timer:
                self.spend(self.plain)
                if self.schedule.wants(self.steps):
                    self.spend(self.sample)
                    self.sampled.append(self.steps)
                    ratio = self.window.close()
                    self.ratios += [] if ratio is None else [ratio]
            self.schedule.passed(self.steps, self.hook_timer.take(), self.epoch)
            self.steps += 1

    def spend(self, milliseconds: float) -> None:
        self.clock.now += round(milliseconds * MILLISECOND)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Keeping(logging.WARNING)
    logging.getLogger("nissa").addHandler(handler)
    yield found
    logging.getLogger("nissa").removeHandler(handler)


def test_without_a_budget_nothing_is_thinned() -> None:
    free, bound = FixedInterval(1), Training()
    bound.go(200)
    assert all(free.wants(step) for step in range(200))
    assert len(bound.sampled) < 50


def test_a_training_ends_under_its_budget(warnings: list[str]) -> None:
    training = Training()
    training.go(600)
    assert training.ratios[0] > 0.15
    assert max(training.ratios[-10:]) < 0.02
    assert training.sampled[-1] - training.sampled[-2] == training.schedule.interval == 16
    (warning,) = warnings  # one for the one change
    assert "every 16th step from step 32 on instead of every 1st" in warning
    assert "overhead_budget allows 2 %" in warning
    assert "takes 16.7" in warning


def test_where_the_budget_is_kept_anyway_nothing_changes(warnings: list[str]) -> None:
    training = Training(sample=0.05)
    training.go(300)
    assert training.sampled == list(range(300))
    assert not warnings


def test_longer_steps_bring_sampling_back(warnings: list[str]) -> None:
    training = Training()
    training.go(600)
    training.step = 1_000.0
    training.go(600)
    assert training.schedule.interval == 1
    assert training.sampled[-50:] == list(range(1150, 1200))
    assert len(warnings) == 2


def test_cheaper_samples_bring_sampling_back() -> None:
    training = Training()
    training.go(600)
    training.sample = 0.02
    training.go(1_000)
    assert training.schedule.interval == 1


def test_it_never_samples_more_often_than_configured() -> None:
    training = Training(every=5, sample=0.001)
    training.go(400)
    assert training.sampled == list(range(0, 400, 5))


def test_sampled_steps_are_those_that_the_interval_divides() -> None:
    training = Training(every=3)
    training.go(600)
    assert training.schedule.interval == 24  # 12 would take 1.7 %, too close to be chosen
    assert [step for step in training.sampled if step > 40] == list(range(48, 600, 24))


def test_it_does_not_swing() -> None:
    training = Training(step=7.0, sample=1.7)
    training.go(300)
    found = training.schedule.interval
    for _ in range(20):
        training.go(128)
        assert training.schedule.interval == found


def test_a_budget_that_cannot_be_kept_is_told_once(warnings: list[str]) -> None:
    training = Training(plain=1.0)
    training.go(10_000)
    assert training.schedule.interval == 1024
    assert len([each for each in warnings if "cannot be kept" in each]) == 1


def test_time_between_epochs_is_no_step() -> None:
    """Else steps would seem long, and samples cheap."""
    training = Training()
    for epoch in range(100):
        training.epoch = f"epoch {epoch}"
        training.go(2)
        training.spend(10_000)
    assert training.schedule.interval == 16


def test_several_optimizers_share_the_budget() -> None:
    training = Training(share=0.04, sample=1.8)
    other = training.budget.schedule(1, "other")
    training.go(64)
    assert training.schedule.interval == 16
    other.close()
    training.go(2_000)
    assert training.schedule.interval == 8


def test_ranks_that_never_agree_leave_sampling_alone(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    class Missing:
        def propose(self, round_number: int, proposal: object) -> None: ...
        def decision(self, round_number: int) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(module, "consensus", lambda *_: Missing())
    training = Training()
    training.go(1_100)
    assert training.sampled == list(range(1_100))
    (warning,) = warnings
    assert "must watch()" in warning
