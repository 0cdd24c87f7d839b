"""Ends of a process: what was noted a second before is in the servers, after a later run at the latest."""

import signal
from pathlib import Path
from time import time

import pytest

from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, Keep, settings
from tests.stack.faults.evidence import compare
from tests.stack.faults.table import Fault
from tests.stack.faults.trainee import DOORS, START, deliver_leftovers, training
from tests.stack.trainers.faulted import STATUS
from tests.stack.training import service_name

SIGNALS = {Fault.SIGKILL: signal.SIGKILL, Fault.SIGTERM: signal.SIGTERM, Fault.SIGINT: signal.SIGINT}
ENDS = {Fault.OS_EXIT: ("os._exit", STATUS), Fault.EXCEPTION: ("exception", 1), Fault.MEMORY: ("memory", 1)}
SUDDEN = {Fault.SIGKILL, Fault.OS_EXIT}
LIVES = 25
"""About three seconds of training."""
SUDDEN_LIVES = 90
"""About ten seconds, of which metrics are known that are older than five."""

QUICK = [(START, Fault.SIGKILL)]
EACH = [
    pytest.param(door, fault, marks=() if (door, fault) in QUICK else pytest.mark.full, id=f"{door}-{fault}")
    for fault in (*SIGNALS, *ENDS)
    for door in DOORS
]


@pytest.mark.parametrize(("door", "fault"), EACH)
def test_a_process_ends(stack: Stack, tmp_path: Path, keep: Keep, door: str, fault: Fault) -> None:
    service = service_name("end")
    environ = settings(stack, GRPC, service)
    end, status = ENDS.get(fault, ("", 0))
    with training(door, tmp_path, environ, end) as trainee:
        trainee.await_lives(SUDDEN_LIVES if fault in SUDDEN else LIVES)
        died = time()
        if fault in SIGNALS:
            trainee.process.send_signal(SIGNALS[fault])
            status = 1 if fault is Fault.SIGINT else -SIGNALS[fault]
        else:
            trainee.end()
        assert trainee.wait() in {status, -signal.SIGINT if fault is Fault.SIGINT else status}, trainee.errors
    if fault in SUDDEN:
        deliver_leftovers(tmp_path, environ)
    keep(fault, door, compare(stack, service, trainee, died=died if fault in SUDDEN else None))
