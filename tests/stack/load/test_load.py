"""Load on one collector: every trace is complete, every counter is equal, and the process grows no further."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, HTTP, settings
from tests.stack.faults.evidence import compare
from tests.stack.faults.trainee import START, training
from tests.stack.load.figures import Load
from tests.stack.queries import settled, trace, value
from tests.stack.training import service_name, train

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

LIVES, ENVIRONMENTS, EVENTS, PARAMETERS = 10_048, 64, 502_400, 1_000
PROCESSES, LIVES_EACH = 8, 20
STEPS = 100_000

_MIB: Final = 1 << 20
_MOST_MEMORY: Final = 24 * _MIB
"""Growth after the warm-up, which is a third of the load: fragments of the allocator come and go."""
_MOST_RATIO: Final = 1.5
"""Duration of a median step at the end of the load to that after the warm-up."""
_STEPS_PER_MILLISECOND: Final = 10
_OF_LIFE: Final = {"seed", "seed.germinated", "seed.training", "seed.culled"}


@pytest.fixture
def node(request: pytest.FixtureRequest) -> str:
    return str(request.node.nodeid)


def growth(noted: list[dict[str, Any]], what: str) -> int:
    """Return by how much a quantity has grown since the warm-up."""
    after = [each[what] for each in noted[len(noted) // 3 :]]
    return int(max(after) - after[0])


def counted(stack: Stack, service: str, counter: str, selector: str, wanted: float) -> float:
    """Return the sum of a counter's series, as soon as it is what is wanted."""
    query = f'sum(last_over_time({counter}{{job="{service}", {selector}}}[3h]))'
    return settled(lambda: value(stack, query) or 0.0, wanted)


def test_thousands_of_seeds_and_half_a_million_events(stack: Stack, tmp_path: Path, node: str) -> None:
    service = service_name("load")
    numbers = [str(each) for each in (LIVES, ENVIRONMENTS, EVENTS, PARAMETERS)]
    found = train("loaded", tmp_path, settings(stack, HTTP, service), "seeds", *numbers, timeout=1_200)
    assert found["flushed"]
    assert found["healthy"]
    assert len(set(found["traces"])) == LIVES

    def incomplete() -> int:
        return sum(not {span["operationName"] for span in trace(stack, each)} >= _OF_LIFE for each in found["traces"])

    assert settled(incomplete, 0, 300) == 0
    decided = "nissa_event_type='POLICY_DECISION', nissa_event_outcome='delivered'"
    assert counted(stack, service, "nissa_seed_transitions_total", "nissa_seed_to='training'", LIVES) == LIVES
    assert counted(stack, service, "nissa_seed_transitions_total", "nissa_seed_to='culled'", LIVES) == LIVES
    decisions = LIVES * found["own"]
    assert counted(stack, service, "nissa_hub_events_total", decided, decisions) == decisions
    memory, threads, files = (growth(found["noted"], what) for what in ("memory", "threads", "files"))
    assert memory < _MOST_MEMORY
    assert (threads, files <= 2) == (0, True)
    Load(
        f"{LIVES:,} seeds in {ENVIRONMENTS} environments, {EVENTS:,} events, a model of {PARAMETERS:,} parameters",
        f"{LIVES:,} of {LIVES:,} traces complete, counters equal; after a third of it memory grew by {memory / _MIB:.1f} MiB, "
        f"threads by {threads}, open files by {files}",
        node,
    ).keep()


def test_processes_that_export_into_one_collector_at_once(stack: Stack, tmp_path: Path, node: str) -> None:
    services = [service_name(f"one-of-{PROCESSES}") for _ in range(PROCESSES)]
    with ExitStack() as trainings:
        trainees = [
            trainings.enter_context(training(START, tmp_path / each, settings(stack, (GRPC, HTTP)[place % 2], each)))
            for place, each in enumerate(services)
        ]
        for trainee in trainees:
            trainee.await_lives(LIVES_EACH)
        for trainee in trainees:
            trainee.end()
        for trainee in trainees:
            assert trainee.wait() == 0, "".join(trainee.errors)
    told = [compare(stack, service, trainee) for service, trainee in zip(services, trainees, strict=True)]
    lives = sum(len(trainee.lives) for trainee in trainees)
    Load(f"{PROCESSES} processes at once", f"each with {told[0]}; {lives:,} lives in all", node).keep()


def test_a_hundred_thousand_steps_of_a_tiny_network(stack: Stack, tmp_path: Path, node: str) -> None:
    service = service_name("steps")
    found = train("loaded", tmp_path, settings(stack, GRPC, service), "steps", str(STEPS), timeout=1_200)
    assert found["flushed"]
    assert found["healthy"]
    newest = f'max(last_over_time(nissa_step{{job="{service}"}}[3h]))'
    # Prometheus keeps one sample per millisecond, so that the very last step may have none of its own.
    assert settled(lambda: (value(stack, newest) or 0.0) >= STEPS - _STEPS_PER_MILLISECOND, True)
    noted = found["noted"]
    memory, threads, files = (growth(noted, what) for what in ("memory", "threads", "files"))
    seconds = [each["seconds"] for each in noted[len(noted) // 3 :]]
    assert memory < _MOST_MEMORY
    assert (threads, files <= 2) == (0, True)
    assert seconds[-1] < _MOST_RATIO * seconds[0]
    Load(
        f"{STEPS:,} steps of a tiny network",
        f"after a third of it memory grew by {memory / _MIB:.1f} MiB, threads by {threads}, open files by {files}; a median step "
        f"takes {seconds[-1] / seconds[0]:.2f} times as long at the end",
        node,
    ).keep()
