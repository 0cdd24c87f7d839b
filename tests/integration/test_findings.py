"""Functions that are called for each finding."""

import logging
import math
import threading
from time import monotonic
from typing import Any

import pytest

import nissa
from nissa import ConfigurationError
from nissa.diagnostics.finding import Finding
from tests.integration.conftest import Toy

pytestmark = pytest.mark.usefixtures("patient")

SETTINGS: dict[str, Any] = {"console__enabled": False, "diagnostics__rules__recoveries": 2}


def fail(run: nissa.Run, toy: Toy, loss: float = math.nan) -> None:
    run.log_loss(loss)
    toy.step()


def test_a_function_is_called_for_each_finding_on_a_thread_of_its_own(toy: Toy, another_toy: Toy) -> None:
    found: list[Finding] = []
    threads: list[threading.Thread] = []
    both: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        threads.append(threading.current_thread())

    with nissa.start("standard", **SETTINGS) as run:
        run.on_finding(note)
        run.on_finding(both.append, cleared=True)
        run.watch(toy.model, toy.optimizer)
        env = run.environment("second")
        env.watch(another_toy.model, another_toy.optimizer)
        fail(run, toy)
        for _ in range(3):
            toy.step(run)
        env.log_loss(math.inf)
        another_toy.step()
        assert run.flush(30)
        assert [(each.name, each.env_id, each.step) for each in found] == [
            ("nonfinite_loss", None, 0),
            ("nonfinite_loss", "second", 0),
        ]
        assert [(each.raised, each.env_id) for each in both] == [(True, None), (False, None), (True, "second")]
    assert found[0].seen == "Training loss is NaN"
    assert found[0].advice
    assert {each.name for each in threads} == {"nissa-on_finding"}
    assert not any(each.is_alive() for each in threads)


@pytest.mark.faults
def test_its_errors_are_logged_once_and_counted_and_training_goes_on(
    toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(finding: Finding) -> None:
        raise SystemExit(finding.name)

    with nissa.start("standard", **SETTINGS) as run:
        run.on_finding(broken, cleared=True)
        run.watch(toy.model, toy.optimizer)
        fail(run, toy)
        for _ in range(3):
            toy.step(run)
        assert run.flush(30)
        hub = run.hub
        counts = {(each.kind, each.outcome): each.count for each in hub.deliveries() if each.backend == "on_finding"}
    assert counts["Finding", "failed"] == 2
    assert [each for each in caplog.records if each.levelno >= logging.ERROR and "on_finding" in each.getMessage()]
    assert len([each for each in caplog.records if "on_finding" in each.getMessage()]) == 1


def test_it_may_diagnose_flush_and_end_the_run(toy: Toy) -> None:
    done = threading.Event()
    narratives = []

    def stop(_: Finding) -> None:
        narratives.append(run.diagnose().narrative)
        assert run.flush(30)
        run.close()
        done.set()

    run = nissa.start("standard", **SETTINGS)
    run.on_finding(stop)
    run.watch(toy.model, toy.optimizer)
    fail(run, toy)
    assert done.wait(60)
    assert run.closed
    assert nissa.current_run() is None
    assert narratives[0].startswith("Loss is not finite")


def test_one_that_hangs_delays_the_end_by_half_of_its_limit_and_the_rest_is_exported(toy: Toy) -> None:
    forever = threading.Event()
    run = nissa.start("standard", limits__exit_timeout_seconds=4, **SETTINGS)
    run.on_finding(lambda _: forever.wait())
    run.watch(toy.model, toy.optimizer)
    fail(run, toy)
    began = monotonic()
    run.close()
    assert monotonic() - began < 30
    forever.set()
    assert run.directory is not None
    assert "TRAINING_ENDED" in (run.directory / "logs.jsonl").read_text()


def test_what_cannot_be_called_and_a_run_that_has_ended_are_refused() -> None:
    run = nissa.start("standard", **SETTINGS)
    with pytest.raises(ConfigurationError, match="function of one argument, not int"):
        run.on_finding(1)  # type: ignore[arg-type]
    run.close()
    with pytest.raises(ConfigurationError, match="has ended"):
        run.on_finding(print)
