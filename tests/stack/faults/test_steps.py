"""Steps of a training while a collector fails, beside a twin without telemetry on the same machine at the same time."""

from contextlib import ExitStack
from pathlib import Path
from time import sleep

import pytest

from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, HTTP, settings
from tests.stack.faults.evidence import slow_steps
from tests.stack.faults.gate import gate
from tests.stack.faults.table import Fault
from tests.stack.faults.test_collector import CASES, broken
from tests.stack.faults.trainee import START, training
from tests.stack.training import service_name

PAIRS = 5
SECONDS = 8.0
BEFORE = 20
"""Seeds before the fault: the kernels are loaded by then."""


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [fault for fault in CASES if fault is not Fault.ABSENT])
def test_no_more_steps_are_slow_than_without_telemetry(own_stack: Stack, tmp_path: Path, fault: Fault) -> None:
    pairs = [_pair(own_stack, tmp_path / str(number), fault) for number in range(PAIRS)]
    assert [pair for pair in pairs if pair[0] > pair[1] + 1] == [], pairs


def _pair(stack: Stack, folder: Path, fault: Fault) -> tuple[int, int]:
    """Return the number of slow steps of a training and of its twin, from the beginning of the fault on."""
    case = CASES[fault]
    with gate(stack) as opened, ExitStack() as block:
        transport, endpoint = (GRPC, None) if case.answer is None else (HTTP, opened.address)
        environ = settings(stack, transport, service_name("steps"), endpoint)
        watched = block.enter_context(training(START, folder / "watched", environ))
        twin = block.enter_context(training("bare", folder / "twin", environ))
        watched.await_lives(BEFORE)
        first = watched.lives[-1]["steps"]
        with broken(case, stack, opened):
            sleep(SECONDS)
        sleep(SECONDS / 2)
        for each in (watched, twin):
            each.end()
            assert each.wait() == 0, each.errors
        return slow_steps(watched.seconds[first:]), slow_steps(twin.seconds[first:])
