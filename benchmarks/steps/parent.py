"""Runs the ways of one model side by side: a process each, which take turns in a random order."""

import multiprocessing
import random
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import TYPE_CHECKING, Any

from benchmarks.steps.child import serve
from benchmarks.steps.rows import counted, live, timing
from benchmarks.steps.table import WAYS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

FEWEST_ROUNDS = 3

Told = dict[str, Any]


class Runner:
    """A process that trains one model, watched in one way."""

    def __init__(self, way: str, model: str, settings: Told) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.way = way
        self.pairs: list[Told] = []
        self.end: Told = {}
        self._bare: Told = {}
        self._watched: Told = {}
        self._connection: Connection = ours
        self._process = context.Process(target=serve, args=(theirs, way, model, settings))
        self._process.start()
        theirs.close()

    def prepare(self) -> None:
        """Let it begin, count what it dispatches, and warm up."""
        self._connection.recv()
        self._connection.send("begin")
        self._connection.recv()
        every = WAYS[self.way].every
        self._bare = self._ask("count", every, watched=False)
        self._watched = self._ask("count", every, watched=True)
        self._ask("pair", 1, bare_first=True)

    def pair(self) -> None:
        """Train a pair of blocks, in an order that alternates: what grows over time then weighs on both."""
        steps = WAYS[self.way].steps
        told = self._ask("pair", steps, bare_first=len(self.pairs) % 2 == 0)
        self.pairs.append({"steps": steps, "background": 0.0, "inside": 0.0, **told})

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self.end = self._connection.recv()
        self._process.join()

    def row(self, bare_peak: float) -> Told:
        """Return the line of the results."""
        way = WAYS[self.way]
        found = {
            **timing(self.pairs, way.every, apart=way.profile is not None or "standard" in self.way),
            **counted(self._watched, self._bare),
            "version": _version(way.package),
        }
        if self.end:
            found["peak_mib"] = f"{self.end['peak'] - bare_peak:.0f}"
            found["bytes"] = round(self.end["bytes"] * way.every / self.end["steps"])
        return found

    def live(self) -> Told | None:
        """Return what the run told of its cost beside what it took; None where it told nothing."""
        return live(self.end["live"], self.pairs) if self.end.get("live") else None

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Told:
        self._connection.send((method, args, kwargs))
        answer: Told = self._connection.recv()
        return answer


def measure(
    model: str, ways: Iterable[str], settings: Told, deadline: float, report: Callable[[list[Runner]], None]
) -> list[Runner]:
    """Run rounds until a time of `monotonic`, three at least; report after each, and at the end."""
    runners = [Runner(way, model, settings) for way in ways]
    runners = [runner for runner in runners if _alive(runner, runner.prepare)]
    rounds, longest = 0, 0.0
    while rounds < FEWEST_ROUNDS or monotonic() + longest < deadline:
        began = monotonic()
        turns = [runner for runner in runners if rounds % WAYS[runner.way].rounds == 0 or not runner.pairs]
        random.shuffle(turns)
        for runner in turns:
            if not _alive(runner, runner.pair):
                runners.remove(runner)
        rounds += 1
        longest = max(longest, monotonic() - began) if rounds > 1 else 0.0
        print(f"{model}: round {rounds}, {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        report(runners)
    for runner in runners:
        runner.close()
    report(runners)
    return runners


def _alive(runner: Runner, method: Callable[[], None]) -> bool:
    """Call a method; whether the process was still there to answer. One that ends costs its way alone."""
    try:
        method()
    except (EOFError, OSError):
        print(f"{runner.way} is left out: its process has ended, and says above why", file=sys.stderr, flush=True)
        return False
    return True


def _version(package: str | None) -> str:
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return ""


def installed(ways: Iterable[str]) -> list[str]:
    """Return the ways whose packages are there, and say which are not."""
    absent = [way for way in ways if WAYS[way].package and not _version(WAYS[way].package)]
    for way in absent:
        print(f"{way} is left out: {WAYS[way].package} is not installed", file=sys.stderr)
    return [way for way in ways if way not in absent]
