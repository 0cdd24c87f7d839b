"""Slow steps of a training while its collector fails, beside a twin without telemetry that runs at the same time.

``python -m benchmarks.outages`` writes ``benchmarks/results/outages.csv``: for each fault of a collector, pairs of a training
and its twin on the real servers, and the number of steps of each that took longer than five times its median, from the beginning
of the fault on. Nothing else may run on the machine: a step takes 5 ms, and what the scheduler takes from it counts too.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import sleep

from benchmarks.facts import COLUMNS, RESULTS, facts, write
from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, HTTP, settings
from tests.stack.faults.evidence import slow_steps
from tests.stack.faults.gate import gate
from tests.stack.faults.table import Fault
from tests.stack.faults.test_collector import CASES, broken
from tests.stack.faults.trainee import BARE, START, training
from tests.stack.training import service_name

FIELDS = ("fault", "pair", "slow", "slow_twin", "longest_ms", "longest_twin_ms", "steps", *COLUMNS)
SECONDS = 10.0
BEFORE = 20
"""Seeds before the fault: the kernels are loaded by then."""


def pair(stack: Stack, folder: Path, fault: Fault) -> dict[str, str | int]:
    """Return what a training and its twin measured."""
    case = CASES[fault]
    with gate(stack) as opened, ExitStack() as block:
        transport, endpoint = (GRPC, None) if case.answer is None else (HTTP, opened.address)
        environ = settings(stack, transport, service_name("steps"), endpoint)
        watched = block.enter_context(training(START, folder / "watched", environ))
        twin = block.enter_context(training(BARE, folder / "twin", environ))
        watched.await_lives(BEFORE)
        first = watched.lives[-1]["steps"]
        with broken(case, stack, opened):
            sleep(SECONDS)
        sleep(SECONDS / 2)
        for each in (watched, twin):
            each.end()
            if each.wait():
                raise RuntimeError("".join(each.errors))
        own, other = watched.seconds[first:], twin.seconds[first:]
    return {
        "slow": slow_steps(own),
        "slow_twin": slow_steps(other),
        "longest_ms": f"{1000 * max(own):.1f}",
        "longest_twin_ms": f"{1000 * max(other):.1f}",
        "steps": len(own),
    }


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    machine_facts = facts(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "stack")
        stack.start()
        try:
            for fault in (fault for fault in CASES if fault is not Fault.ABSENT):
                for number in range(arguments.pairs):
                    found = pair(stack, Path(folder) / f"{len(rows)}", fault)
                    rows.append({"fault": fault, "pair": number, **found, **machine_facts})
                    print(fault, found)
        finally:
            stack.clean()
    write(arguments.into / "outages.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
