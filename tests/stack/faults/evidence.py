"""What the servers have of a training, compared with what it has noted."""

from collections import defaultdict
from time import monotonic, sleep
from typing import Any

from scripts.stack import Stack
from tests.stack.faults.trainee import Trainee
from tests.stack.queries import fetch, samples

OLDER_SECONDS = 1.0
"""Age of a fact that survives any end of its process."""
METRICS_SECONDS = 6.0
"""The same for a point of a metric: they are written every 5 s."""
_SETTLED_SECONDS = 120.0
_TOO_MANY_TRACES = 10_000
_MIB = 1 << 20

Key = tuple[str, int]
"""Run and rank."""


def compare(stack: Stack, service: str, trainee: Trainee, *, died: float | None = None) -> str:
    """Compare all that a training has noted with the servers, and return the result in words.

    Args:
        died: When the process ended without an end of its run, seconds since the Unix epoch.
    """
    told = [
        _facts(stack, service, trainee, died),
        _counters(stack, service, trainee, died),
        _steps(stack, service, trainee, died),
    ]
    return ", ".join(told)


def _facts(stack: Stack, service: str, trainee: Trainee, died: float | None) -> str:
    facts = {(each["trace"], each["span"]): each["seed"] for each in _old(trainee, died, OLDER_SECONDS)}
    opened = {each["trace"] for each in trainee.notes if each["note"] == "open"}
    assert facts
    assert opened

    def missing() -> tuple[set[str], set[str]]:
        found = fetch(f"{stack.jaeger}/api/traces", service=service, limit=_TOO_MANY_TRACES)["data"] or []
        named = {(span["operationName"], span["traceID"], span["spanID"]) for each in found for span in each["spans"]}
        roots = {(trace, span) for name, trace, span in named if name == "seed"}
        begun = {trace for name, trace, _ in named if name == "seed.started"}
        return {seed for ids, seed in facts.items() if ids not in roots}, opened - begun

    lacking = _settled(missing, (set(), set()))
    assert lacking == (set(), set()), (lacking, trainee.errors)
    return f"{len(facts):,} of {len(facts):,} facts"


def _counters(stack: Stack, service: str, trainee: Trainee, died: float | None) -> str:
    old, every = _by_process(_old(trainee, died, OLDER_SECONDS)), _by_process(trainee.lives)

    def counted() -> dict[Key, float]:
        selector = f'job="{service}", nissa_seed_to="culled"'
        return _by_labels(stack, f"last_over_time(nissa_seed_transitions_total{{{selector}}}[3h])")

    def right(found: dict[Key, float]) -> bool:
        return all(len(old[key]) <= found.get(key, 0) <= len(every[key]) for key in every)

    found = _settled(lambda: right(counted()), True)
    assert found, (counted(), {key: len(lives) for key, lives in every.items()})
    return "counters equal"


def _steps(stack: Stack, service: str, trainee: Trainee, died: float | None) -> str:
    every = _by_process(trainee.lives)
    least = {key: max((each["steps"] for each in lives), default=0) for key, lives in every.items()}
    if died is not None:
        old = _by_process(_old(trainee, died, METRICS_SECONDS))
        least = {key: max((each["steps"] for each in old[key]), default=0) for key in every}

    def numbers() -> dict[Key, list[int]]:
        found: defaultdict[Key, list[int]] = defaultdict(list)
        for series in samples(stack, f'nissa_step{{job="{service}"}}[3h]'):
            found[_key(series["metric"])] += [int(float(value)) for _, value in series["values"]]
        return {key: sorted(set(steps)) for key, steps in found.items()}

    def holes() -> dict[Key, str]:
        found = numbers()
        return {
            key: f"{len(found.get(key, []))} of at least {count}"
            for key, count in least.items()
            if found.get(key, []) != list(range(len(found.get(key, [])))) or len(found.get(key, [])) < count
        }

    lacking = _settled(holes, {})
    assert lacking == {}, lacking
    return f"{sum(map(len, numbers().values())):,} steps without a hole"


def _old(trainee: Trainee, died: float | None, seconds: float) -> list[dict[str, Any]]:
    return [each for each in trainee.lives if died is None or each["at"] < died - seconds]


def _by_process(notes: list[dict[str, Any]]) -> defaultdict[Key, list[dict[str, Any]]]:
    found: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
    for note in notes:
        found[note["run"], note["rank"]].append(note)
    return found


def _key(labels: dict[str, str]) -> Key:
    return labels["nissa_run_id"], int(labels.get("dl_rank", "-1"))


def _by_labels(stack: Stack, expression: str) -> dict[Key, float]:
    found: defaultdict[Key, float] = defaultdict(float)
    for series in samples(stack, expression):
        found[_key(series["metric"])] += float(series["value"][1])
    return found


def _settled(look: Any, wanted: Any) -> Any:
    deadline = monotonic() + _SETTLED_SECONDS
    while (found := look()) != wanted and monotonic() < deadline:
        sleep(0.3)
    return found


def memory_growth(trainee: Trainee, begun: float, over: float) -> float:
    """Return by how many MiB the memory of the process grew in the last two thirds of a fault."""
    within = [each["memory"] for each in trainee.lives if begun + (over - begun) / 3 <= each["at"] <= over]
    return (max(within) - within[0]) / _MIB if within else 0.0


def slow_steps(seconds: list[float]) -> int:
    """Return the number of steps that took longer than five times the median."""
    ordered = sorted(seconds)
    return sum(each > 5 * ordered[len(ordered) // 2] for each in seconds)
