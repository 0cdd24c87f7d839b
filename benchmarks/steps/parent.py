"""Run the ways of watching in one process each; the processes take turns in a random order."""

import multiprocessing
import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import TYPE_CHECKING, Any

from benchmarks.steps.child import TIMED, serve
from benchmarks.steps.rows import counted, timing
from benchmarks.steps.table import WAYS
from benchmarks.steps.threads import free_memory

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

FEWEST_ROUNDS = 5

Told = dict[str, Any]


class Runner:
    """A process that trains one model, watched in one way."""

    def __init__(self, way: str, model: str, settings: Told) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.way = way
        self.model = model
        self.pairs: list[Told] = []
        self.end: Told = {}
        self._turns = 0
        self._counts: Told = {}
        self._connection: Connection = ours
        self._process = context.Process(target=serve, args=(theirs, way, model, settings))
        self._process.start()
        theirs.close()

    def prepare(self) -> None:
        """Start the process and count the operations of its steps."""
        self._connection.recv()
        self._connection.send("begin")
        self._connection.recv()
        self._counts = self._ask("count", WAYS[self.way].every)
        _say(f"{self.model}, {self.way}: ready")

    def turn(self, number: int) -> None:
        """Train its pairs of blocks, if it takes part in a round."""
        if number % WAYS[self.way].rounds:
            return
        found = self._ask("turn", WAYS[self.way].pairs)
        self.pairs += [{"turn": self._turns, "steps": TIMED, **pair} for pair in found]
        self._turns += 1

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self.end = self._connection.recv()
        self._process.join()

    def row(self, bare_peak: float) -> Told:
        """Return the line of the results."""
        way = WAYS[self.way]
        found = {
            **timing(self.pairs, way.every),
            **counted(self._counts["watched"], self._counts["bare"]),
            "version": _version(way.package),
        }
        if self.end:
            found["peak_mib"] = f"{self.end['peak'] - bare_peak:.0f}"
            found["bytes"] = round(self.end["bytes"] * way.every / self.end["steps"])
        return found

    def _ask(self, method: str, *args: Any) -> Any:
        self._connection.send((method, args))
        return self._connection.recv()


def measure(
    pairs: Iterable[tuple[str, str]],
    settings: Told,
    deadline: float,
    report: Callable[[list[Runner]], None],
) -> None:
    """Run at least five rounds, until a deadline; report after each round and at the end.

    Args:
        pairs: Models, and ways of watching them.
        settings: Settings of the training.
        deadline: Time of `monotonic` at which to end.
        report: Called with the results so far.
    """
    runners = [Runner(way, model, settings) for model, way in pairs]
    runners = [runner for runner in runners if _alive(runner, runner.prepare)]
    rounds, longest = 0, 0.0
    while rounds < FEWEST_ROUNDS or monotonic() + longest < deadline:
        began = monotonic()
        random.shuffle(runners)
        runners = [runner for runner in runners if _alive(runner, partial(runner.turn, rounds))]
        rounds += 1
        longest = max(longest, monotonic() - began)
        _say(f"round {rounds}, {monotonic() - began:.0f} s, {free_memory() / 1024:.1f} GiB free")
        report(runners)
    runners = [runner for runner in runners if _alive(runner, runner.close)]
    report(runners)


def _alive(runner: Runner, method: Callable[[], None]) -> bool:
    """Return whether the process was still alive for the call of a method; if one ends, only its way is lost."""
    try:
        method()
    except (EOFError, OSError):
        _say(f"{runner.way} of {runner.model} is left out: its process has ended, and says above why")
        return False
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _version(package: str | None) -> str:
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return ""


def installed(ways: Iterable[str]) -> list[str]:
    """Return the ways whose packages are installed, and print the others."""
    absent = [way for way in ways if WAYS[way].package and not _version(WAYS[way].package)]
    for way in absent:
        _say(f"{way} is left out: {WAYS[way].package} is not installed")
    return [way for way in ways if way not in absent]
