"""Several processes: each has its own run or rank, and all of them are in the servers."""

import signal
from pathlib import Path
from time import time

import pytest

from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, Keep, settings
from tests.stack.faults.evidence import compare
from tests.stack.faults.table import Fault
from tests.stack.faults.trainee import DOORS, START, deliver_leftovers, training
from tests.stack.training import service_name
from tests.support import until

METHODS = {Fault.FORK: "fork", Fault.SPAWN: "spawn", Fault.FORKSERVER: "forkserver"}
EACH = [
    pytest.param(door, fault, marks=() if (door, fault) == (START, Fault.FORK) else pytest.mark.full)
    for fault in METHODS
    for door in DOORS
]


@pytest.mark.parametrize(("door", "fault"), EACH)
def test_a_process_starts_a_child_that_trains(
    stack: Stack, tmp_path: Path, keep: Keep, door: str, fault: Fault
) -> None:
    service = service_name("child")
    with training(door, tmp_path, settings(stack, GRPC, service), "regular", METHODS[fault]) as trainee:
        trainee.await_lives(5)
        until(lambda: any(each["seed"].startswith("child-seed") for each in trainee.lives), "a seed of the child", 180)
        trainee.end()
        assert trainee.wait() == 0, "".join(trainee.errors)
    assert len({each["run"] for each in trainee.lives}) == 2
    keep(fault, door, compare(stack, service, trainee))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("door", DOORS)
def test_one_of_two_ranks_dies(stack: Stack, tmp_path: Path, keep: Keep, door: str) -> None:
    service = service_name("ranks")
    environ = settings(stack, GRPC, service)
    with training(door, tmp_path, environ, "dying rank", ranks=True) as trainee:
        assert trainee.wait() not in {0, -signal.SIGKILL}, "".join(trainee.errors)
        died = max(each["at"] for each in trainee.lives if each["rank"] == 1)
    assert {each["rank"] for each in trainee.lives} == {0, 1}
    deliver_leftovers(tmp_path, environ)
    keep(Fault.DYING_RANK, door, compare(stack, service, trainee, died=min(died, time())))
