"""What is timed, what is watched, and what threads take."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from time import thread_time

import pytest
import torch

from benchmarks.steps import child
from benchmarks.steps.child import LEAD, TIMED, Child
from benchmarks.steps.threads import Exporter, spent
from benchmarks.steps.training import Training
from benchmarks.steps.ways import Calls, StepHooks, Watching


@pytest.fixture
def training() -> Training:
    return Training("tiny", "cpu")


def test_hooks_of_a_step_are_taken_off_and_put_back(training: Training) -> None:
    seen = []
    handle = training.optimizer.register_step_post_hook(lambda *_: seen.append("watched"))
    hooks = StepHooks(training.optimizer)
    later = training.optimizer.register_step_post_hook(lambda *_: seen.append("timed"))
    training.optimizer.step()
    with hooks.attached():
        training.optimizer.step()
    training.optimizer.step()
    assert seen == ["timed", "timed", "watched", "timed"]
    later.remove()
    with hooks.attached():
        handle.remove()
        training.optimizer.step()
    assert len(seen) == 4


@pytest.fixture
def order(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what happens, in order."""
    monkeypatch.setattr(child, "EXPORT_SECONDS", 0.0)
    monkeypatch.setattr(child, "settle", lambda: found.append("settle"))
    found: list[str] = []

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls(lambda _loss: found.append("watched step"), lambda: None)

    exporter = Exporter(lambda: found.append("export"))
    Child(training, Watching(attached, exporter)).turn(2)
    exporter.close()
    return found


def test_watched_blocks_stand_between_bare_ones_and_hold_an_export(order: list[str]) -> None:
    block = [*["watched step"] * (LEAD + TIMED), "export", "settle"]
    found = [each for each in order if each != "export"]
    assert found == ["settle", *["settle"], *block[:-2], "settle", *block[:-2], "settle", "settle"]
    assert order.count("export") == 2
    assert order.index("export") > order.index("watched step")


def test_what_an_export_takes_is_told_apart_from_what_steps_take() -> None:
    began = Event()

    def work() -> None:
        began.set()
        while thread_time() < 0.05:
            pass

    exporter = Exporter(work)
    clocks = {exporter.thread: 70_000_000, 1: 30_000_000}
    exporter.begin()
    exporter.wait()
    assert began.is_set()
    found = spent(clocks, exporter)
    exporter.close()
    assert found.steps == pytest.approx(0.03)
    assert found.exports >= 0.07


def test_a_peak_begins_anew(training: Training) -> None:
    training.forget_peak()  # that of other tests, which may have needed more
    before = training.peak()
    torch.ones(30_000_000)
    assert training.peak() > before + 50
    training.forget_peak()
    assert training.peak() < before + 50


def test_a_step_adds_up_the_gradients_of_batches() -> None:
    once, thrice = Training("tiny", "cpu"), Training("tiny", "cpu", 3)
    thrice.network.load_state_dict(once.network.state_dict())
    thrice._loss = once._loss  # the same batch
    for training in (once, thrice):
        training.step(Calls())
    for one, three in zip(once.network.parameters(), thrice.network.parameters(), strict=True):
        assert one.grad is not None
        assert three.grad is not None
        torch.testing.assert_close(3 * one.grad, three.grad)


def test_what_no_pair_should_hold_comes_before_all_of_them(training: Training) -> None:
    found: list[str] = []

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls()

    exporter = Exporter(lambda: found.append("export"))
    Child(training, Watching(attached, exporter)).count(1)
    exporter.close()
    assert found == ["export"]
