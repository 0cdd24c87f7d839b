"""A collector that fails while trainings go on: all that they noted is in the servers afterwards, and memory is flat."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep, time

import pytest

from scripts.stack import Stack
from tests.stack.faults import gate as answers
from tests.stack.faults.conftest import GRPC, HTTP, Keep, settings
from tests.stack.faults.evidence import compare, memory_growth
from tests.stack.faults.gate import Answer, Gate, gate
from tests.stack.faults.table import Fault
from tests.stack.faults.trainee import DOORS, START, Trainee, training
from tests.stack.queries import value
from tests.stack.training import service_name

MEMORY_MIB = 16
"""Far more than a fault of a minute leaves in memory, and far less than what it would be if telemetry waited there."""


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of a collector.

    Args:
        break_it, mend: Functions of a stack.
        answer: How the gate answers instead.
    """

    fault: Fault
    break_it: Callable[[Stack], None] | None = None
    mend: Callable[[Stack], None] | None = None
    answer: Answer | None = None


CASES = {
    case.fault: case
    for case in (
        Case(Fault.ABSENT, lambda stack: stack.kill("collector"), lambda stack: stack.start_one("collector")),
        Case(Fault.KILLED, lambda stack: stack.kill("collector"), lambda stack: stack.start_one("collector")),
        Case(Fault.STOPPED, lambda stack: stack.pause("collector"), lambda stack: stack.resume("collector")),
        Case(Fault.TOO_MANY, answer=answers.too_many),
        Case(Fault.UNAVAILABLE, answer=answers.unavailable),
        Case(Fault.PARTIAL, answer=answers.partial),
        Case(Fault.GARBAGE, answer=answers.garbage),
        Case(Fault.SLOW, answer=answers.slow),
    )
}


@contextmanager
def broken(case: Case, stack: Stack, opened: Gate) -> Iterator[None]:
    """Let the collector fail within the block."""
    if case.break_it is not None and case.mend is not None:
        case.break_it(stack)
        try:
            yield
        finally:
            case.mend(stack)
        return
    assert case.answer is not None
    opened.answer = case.answer
    try:
        yield
    finally:
        opened.answer = answers.forward


def _measure(case: Case, stack: Stack, folder: Path, doors: tuple[str, ...], seconds: float, keep: Keep) -> None:
    services = {door: service_name("fault") for door in doors}
    transport = GRPC if case.answer is None else HTTP
    with gate(stack) as opened, ExitStack() as block:
        endpoint = None if case.answer is None else opened.address

        def started(door: str) -> Trainee:
            environ = settings(stack, transport, services[door], endpoint)
            return block.enter_context(training(door, folder / str(doors.index(door)), environ))

        trainees: dict[str, Trainee] = {}
        if case.fault is not Fault.ABSENT:
            trainees = {door: started(door) for door in doors}
            for trainee in trainees.values():
                trainee.await_lives(3)
        with broken(case, stack, opened):
            begun = time()
            trainees = trainees or {door: started(door) for door in doors}
            for trainee in trainees.values():
                trainee.await_lives(3)
            sleep(max(0.0, begun + seconds - time()))
            over = time()
        for trainee in trainees.values():
            trainee.await_lives(3)
        sleep(5)  # the longest pause between two attempts
        for door, trainee in trainees.items():
            trainee.end()
            assert trainee.wait() == 0, "".join(trainee.errors)
            told = compare(stack, services[door], trainee)
            growth = memory_growth(trainee, begun, over)
            assert growth < MEMORY_MIB
            if case.fault is Fault.PARTIAL:
                told += f", {_refused(stack, services[door])} refused items counted"
            keep(case.fault, door, f"{told}; memory {growth:+.1f} MiB in {over - begun:.0f} s")
        if case.fault is Fault.PARTIAL:
            assert sum(_refused(stack, service) for service in services.values()) == opened.refused["logs"] > 0


def _refused(stack: Stack, service: str) -> int:
    selector = f'job="{service}", nissa_export_outcome="refused"'
    return int(value(stack, f"sum(last_over_time(nissa_export_items_total{{{selector}}}[1h]))") or 0)


@pytest.mark.parametrize("fault", [Fault.KILLED, pytest.param(Fault.UNAVAILABLE, marks=pytest.mark.full)])
def test_a_training_meets_a_short_outage(own_stack: Stack, tmp_path: Path, keep: Keep, fault: Fault) -> None:
    _measure(CASES[fault], own_stack, tmp_path, (START,), 4.0, keep)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", CASES)
def test_a_training_of_each_entry_point_meets_an_outage(
    own_stack: Stack, tmp_path: Path, keep: Keep, fault: Fault
) -> None:
    _measure(CASES[fault], own_stack, tmp_path, DOORS, 60.0 if fault is Fault.KILLED else 20.0, keep)
