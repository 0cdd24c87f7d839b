"""Finalizers, logging handlers and signals may run inside any section of ours: none of them ever waits for a lock."""

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest
import torch

import nissa
from nissa import NissaHub, TelemetryEvent
from nissa.hub.critical import CriticalSections
from nissa.run.run import Run
from tests.support import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def quick_collection() -> Iterator[None]:
    """Leave the million objects of imported modules out of each collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def watched(run: Run, name: str) -> torch.optim.Optimizer:
    """Return a watched optimizer that only the garbage collector frees, since it refers to itself."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.itself, optimizer.model = optimizer, model  # type: ignore[attr-defined]
    run.watch(model, optimizer, name=name)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return optimizer


class CollectingLock:
    """Runs the garbage collector with each entry, when there is a watched optimizer to be freed."""

    def __init__(self, name: str, victims: list[torch.optim.Optimizer], freed_in: list[str]) -> None:
        self.name, self.victims, self.freed_in = name, victims, freed_in
        self.lock = threading.RLock()

    def _is_owned(self) -> bool:
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def __enter__(self) -> None:
        self.lock.acquire()
        if self.victims:
            self.victims.pop()
            gc.collect()
            self.freed_in.append(self.name)

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@dataclass
class Collecting:
    victims: list[torch.optim.Optimizer] = field(default_factory=list)
    freed_in: list[str] = field(default_factory=list)
    locks: list[CollectingLock] = field(default_factory=list)


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Collecting:
    found = Collecting()

    def lock(self: CriticalSections, shared_as: str | None = None) -> CollectingLock:
        del shared_as
        caller = sys._getframe(1).f_globals["__name__"]
        made = CollectingLock(caller, found.victims, found.freed_in)
        found.locks.append(made)
        self._locks = (*self._locks, weakref.ref(made))  # type: ignore[arg-type]
        return made

    monkeypatch.setattr(CriticalSections, "lock", lock)
    return found


def test_a_watched_optimizer_is_collected_inside_every_lock(collecting: Collecting) -> None:
    nissa.reset_hub()
    with nissa.start("diagnostic") as run:
        run.watch(model := torch.nn.Linear(2, 1), optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
        for round_ in range(40):
            victims = [watched(run, f"{round_}-{index}") for index in range(4)]
            for index, victim in enumerate(victims):
                run.log_loss(
                    1.0, model=f"{round_}-{index}"
                )  # before the step, so that its row does not wait for a loss
                victim.step()
            collecting.victims.extend(victims)
            del victims, victim
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            run.germinate(f"seed-{round_}", blueprint="conv").cull(reason="no improvement")
            run.validate(loss=1.0, accuracy=0.5)
            run.analytics.snapshot()
            locks = {lock.name for lock in collecting.locks}
            if locks <= set(collecting.freed_in):
                break
        assert {"nissa.hub.hub", "nissa.diagnostics.rulebook", "nissa.analytics.blueprints"} <= locks
        assert set(collecting.freed_in) == locks
        assert run.flush(30)
        collecting.victims.clear()
        gc.collect()
        assert run.flush(30)
        assert len(run._runtime.watches._watches) == 1


@pytest.fixture
def eager_collection() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collection")
def test_an_optimizer_is_collected_between_any_two_allocations() -> None:
    with nissa.start("diagnostic") as run:
        for index in range(20):
            watched(run, str(index)).step()
            run.germinate(f"seed-{index}", blueprint="conv").cull(reason="no improvement")
            run.validate(loss=1.0, accuracy=0.5)
        gc.collect()
        assert run.flush(60)
        assert not run._runtime.watches._watches


def test_thousands_of_watched_optimizers_are_collected_while_a_run_validates() -> None:
    with nissa.start("minimal") as run:
        other, ends = run.environment("validating"), threading.Event()
        validations: list[float | None] = []

        def validate() -> None:
            while not ends.wait(0.002):
                validations.append(other.validate(loss=1.0, accuracy=0.5).validation_loss)

        thread = threading.Thread(target=validate, daemon=True)
        thread.start()
        for index in range(4_000):
            watched(run, str(index)).step()
        ends.set()
        thread.join(60)
        assert not thread.is_alive()
        gc.collect()
        assert run.flush(60)
        assert len(validations) > 1
        assert not run._runtime.watches._watches


class Forwarding(logging.Handler):
    """Sends each record to the hub, as an application may."""

    def __init__(self, hub: NissaHub) -> None:
        super().__init__()
        self.hub = hub
        self.records = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        self.hub.emit(TelemetryEvent("LOG", message=record.getMessage()))


@pytest.fixture
def attach() -> Iterator[Callable[[logging.Handler], None]]:
    attached: list[logging.Handler] = []
    root = logging.getLogger()
    level = root.level

    def add(handler: logging.Handler) -> None:
        attached.append(handler)
        root.addHandler(handler)
        root.setLevel(logging.INFO)

    yield add
    for handler in attached:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.full)])
def test_two_threads_go_on_under_a_logging_handler_that_forwards_to_the_hub(
    attach: Callable[[logging.Handler], None], seconds: float
) -> None:
    with nissa.start("standard") as run:
        handler = Forwarding(run.hub)
        attach(handler)
        deadline = monotonic() + seconds
        rounds = {"logs": 0, "trains": 0}

        def logs() -> None:
            while monotonic() < deadline:
                logging.getLogger("application").info("still training")
                rounds["logs"] += 1

        def trains() -> None:
            while monotonic() < deadline:
                seed = run.germinate(f"seed-{rounds['trains']}", blueprint="conv")
                seed.cull(reason="no improvement")
                rounds["trains"] += 1

        threads = [threading.Thread(target=each, daemon=True) for each in (logs, trains)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 30)
            assert not thread.is_alive()
        assert min(rounds.values()) > 10
        assert handler.records >= rounds["logs"] + 2 * rounds["trains"]
        assert run.analytics.snapshot()["blueprints"]["conv"]["culled"] == rounds["trains"]


def test_a_slow_logging_handler_holds_up_no_other_thread(attach: Callable[[logging.Handler], None]) -> None:
    entered, goes_on = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def createLock(self) -> None:  # noqa: N802 - logging's own name
            self.lock = None  # so that only we could hold anybody up

        def emit(self, record: logging.LogRecord) -> None:
            if "Germinated 'slow'" in record.getMessage():
                entered.set()
                assert goes_on.wait(60)

    with nissa.start("minimal") as run:
        attach(Slow())
        slow = threading.Thread(target=lambda: run.germinate("slow", blueprint="conv"), daemon=True)
        slow.start()
        assert entered.wait(30)
        done: list[Any] = []
        others = [
            lambda: run.germinate("quick", blueprint="conv"),
            lambda: run.hub.emit(TelemetryEvent("MINE")),
            run.analytics.summary_table,
            run.hub.deliveries,
            run.hub.queue_sizes,
        ]
        thread = threading.Thread(target=lambda: done.extend(each() for each in others), daemon=True)
        thread.start()
        thread.join(30)
        assert len(done) == len(others)
        assert run.analytics.snapshot()["blueprints"]["conv"]["germinated"] == 2
        goes_on.set()
        slow.join(30)


def test_a_finalizer_of_the_application_that_emits_inside_a_section_is_deferred_not_lost() -> None:
    class Emits:
        def __init__(self, hub: NissaHub, number: int) -> None:
            self.hub, self.number, self.itself = hub, number, self

        def __del__(self) -> None:
            self.hub.emit(TelemetryEvent("FREED", data={"number": self.number}))

    memory = nissa.MemoryBackend()
    with nissa.start("minimal", backends=[memory]) as run:
        for number in range(200):
            Emits(run.hub, number)
            with run.hub.sections, run.hub.order:
                gc.collect()
                inside = [event for event in memory.events if event.event_type == "FREED"]
                assert not any(event.data["number"] == number for event in inside)

        def freed() -> list[int]:
            gc.collect()  # does nothing while a finalizer on another thread waits for its turn
            return sorted(event.data["number"] for event in memory.events if event.event_type == "FREED")

        # One of them may be emitted on the thread of a backend, which waits for its turn as long as this loop runs.
        until(lambda: len(freed()) >= 200, "the events")
        assert freed() == list(range(200))
