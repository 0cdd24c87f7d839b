"""Step numbers are the same whichever rows are dropped on their way to the host."""

import gc
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from nissa.gradients.capture import Measures
from nissa.gradients.selection import Selection
from nissa.gradients.skips import SkipCount, total
from nissa.gradients.step_metadata import SKIPPED_CALLS, DeliveryProgress, SamplingPlan, StepMetadata
from nissa.gradients.step_processor import StepProcessor
from nissa.gradients.steps import StepClock
from nissa.gradients.watch import Watch
from nissa.hub.error_boundary import ErrorBoundary
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured, StepSkipped
from nissa.kernels.moments import Layout, Thresholds

if TYPE_CHECKING:
    from nissa.kernels.transfer import Transfer

Row = tuple["Transfer", StepMetadata]
Number = tuple[type[Measurement], int, int]
"""Kind of a measurement, its time, and the number of its step."""


class Idle(Optimizer):
    """Does nothing, as a fused optimizer that skips; a test sets its ``found_inf``."""

    found_inf: torch.Tensor | float | None = None

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


class Rows(list[Row]):
    """Takes the place of the reader."""

    def submit(self, transfer: "Transfer", note: StepMetadata, *, hurry: bool = True, place: object = None) -> None:
        del hurry, place
        self.append((transfer, note))

    def hold(self, row: Any) -> None:
        self.held = row
        row.send()

    def take(self, row: Any) -> bool:
        del row
        return False


class Bench:
    """One watched optimizer, whose rows are kept."""

    def __init__(self, *, every: int = 2, optimizer: Optimizer | None = None) -> None:
        self.rows = Rows()
        self.network = nn.Linear(2, 1)
        self.optimizer = cast("Idle", optimizer or Idle(self.network.parameters()))
        self.finalized: deque[Watch] = deque()
        self.closed: list[Watch] = []
        self.clock = StepClock(None, iter(range(10**9)).__next__)
        self.watch = self.again(every)

    def again(self, every: int = 2) -> Watch:
        measures = Measures(layout=Layout(buckets=None), thresholds=Thresholds())
        return Watch(
            self.network,
            self.optimizer,
            name=None,
            primary=True,
            hooks=True,
            scaler=None,
            sampling=SamplingPlan(every_n_steps=every, selection=Selection("all"), measures=measures),
            clock=self.clock,
            seeds=list,
            readback=cast("Any", self.rows),
            error_boundary=ErrorBoundary(),
            on_close=self.closed.append,
            finalized=self.finalized,
        )

    def step(self, found_inf: torch.Tensor | float | None = None) -> None:
        self.network(torch.ones(1, 2)).sum().backward()
        self.optimizer.found_inf = found_inf
        self.optimizer.step()


def deliver(rows: list[Row]) -> list[Measurement]:
    """What comes of rows when they are all that arrive."""
    out: list[Measurement] = []
    processor = StepProcessor(out.append, most=200)
    watches: dict[int, DeliveryProgress] = {}
    for transfer, note in rows:
        fresh = watches.setdefault(id(note.delivered), DeliveryProgress())
        processor(replace(note, delivered=fresh), transfer.arrays())
    return out


def numbers(out: list[Measurement]) -> set[Number]:
    return {
        (type(each), each.time_unix_nano, each.step)
        for each in out
        if isinstance(each, StepMeasured | GradientsMeasured)
    }


def skipped(out: list[Measurement]) -> int:
    return sum(each.count for each in out if isinstance(each, StepSkipped))


WAYS: dict[str, Any] = {
    "step": lambda bench: bench.step(),
    "fine": lambda bench: bench.step(torch.tensor(0.0)),
    "overflow": lambda bench: bench.step(torch.tensor([1.0])),
    "overflow elsewhere": lambda bench: bench.step(torch.tensor(2.0, dtype=torch.bfloat16)),  # travels as a tensor
    "overflow on the host": lambda bench: bench.step(1.0),
    "not begun": lambda bench: bench.watch.skip(),
}


@given(
    st.lists(st.tuples(st.sampled_from(list(WAYS)), st.booleans()), min_size=1, max_size=30),
)
@example([("overflow", False)] * 10 + [("step", True)])
@example([("overflow elsewhere", False), ("not begun", False), ("overflow", False), ("step", True)])
def test_rows_that_are_dropped_change_no_number_of_the_rest(course: list[tuple[str, bool]]) -> None:
    bench = Bench()
    for way, _ in course:
        WAYS[way](bench)
    bench.step()  # in a queue that drops the oldest, the newest row always arrives
    kept = [*(keep for _, keep in course), True]
    everything = deliver(bench.rows)
    arrived = deliver([row for row, keep in zip(bench.rows, kept, strict=True) if keep])
    times = {note.time_unix_nano for (_, note), keep in zip(bench.rows, kept, strict=True) if keep}
    assert numbers(arrived) == {each for each in numbers(everything) if each[1] in times}
    steps = sum(way in ("step", "fine") for way, _ in course)
    assert skipped(arrived) == skipped(everything) == len(course) - steps
    assert sorted(each.step for each in everything if isinstance(each, StepMeasured)) == list(range(steps + 1))


@given(st.lists(st.tuples(st.sampled_from(list(WAYS)), st.booleans()), min_size=1, max_size=30))
@example([("step", False), ("overflow", False), ("step", False)])
def test_what_is_missing_before_a_step_and_before_a_sample_is_known(course: list[tuple[str, bool]]) -> None:
    bench = Bench()
    for way, _ in course:
        WAYS[way](bench)
    kept = [row for row, (_, keep) in zip(bench.rows, course, strict=True) if keep]
    everything, arrived = deliver(bench.rows), deliver(kept)
    for kind in (StepMeasured, GradientsMeasured):
        all_times = [each.time_unix_nano for each in everything if isinstance(each, kind)]
        place = 0
        for each in arrived:
            if isinstance(each, kind):
                at = all_times.index(each.time_unix_nano)
                assert each.missed == at - place
                place = at + 1
    assert all(each.missed == 0 for each in everything if isinstance(each, StepMeasured | GradientsMeasured))


def test_a_watch_that_follows_another_continues_its_counts_while_rows_of_that_are_on_their_way() -> None:
    bench = Bench()
    for found_inf in (1.0, 0.0, 1.0, 0.0):
        bench.step(torch.tensor(found_inf))
    bench.watch.close()
    bench.watch = bench.again()
    bench.step(torch.tensor(1.0))
    bench.step()
    out = deliver(bench.rows)
    assert skipped(out) == 3
    measured = [each for each in out if isinstance(each, StepMeasured)]
    assert [(each.step, each.missed) for each in measured] == [(0, 0), (1, 0), (2, 0)]
    assert bench.watch.steps == 6


def test_a_count_adds_up_devices_and_keeps_each_where_it_is() -> None:
    count = SkipCount(SKIPPED_CALLS)
    for found in (1.0, torch.tensor(1.0), torch.zeros((), device="meta"), torch.tensor([0.0]), torch.tensor(3.0), 0.0):
        count.add(found)
    known: dict[str, float] = {}
    moving: dict[str, torch.Tensor] = {}
    count.write(known, moving)
    assert {name: each.device.type for name, each in moving.items()} == {
        f"{SKIPPED_CALLS}cpu": "cpu",
        f"{SKIPPED_CALLS}meta": "meta",
    }
    arrived = {name: float(each) for name, each in moving.items() if each.device.type == "cpu"}
    assert total({**known, **arrived, "loss": 9.0}, SKIPPED_CALLS) == 3


def test_a_count_that_is_on_its_way_does_not_change() -> None:
    bench = Bench(every=0)
    for _ in range(3):
        bench.step(torch.tensor(1.0, dtype=torch.bfloat16))
    counts = [total(note.packing.unpack(transfer.arrays())[1], SKIPPED_CALLS) for transfer, note in bench.rows]
    assert counts == [1, 2, 3]


def test_a_finalizer_only_puts_the_watch_into_the_queue() -> None:
    bench = Bench(optimizer=Idle([nn.Parameter(torch.zeros(1))]))
    watch = bench.watch
    bench.optimizer = cast("Any", None)
    gc.collect()
    assert list(bench.finalized) == [watch]
    assert bench.closed == []
    watch.close()
    assert (list(bench.finalized), bench.closed) == ([watch], [])


def test_close_forgets_at_once_and_leaves_nothing_to_the_finalizer() -> None:
    bench = Bench()
    bench.watch.close()
    bench.watch.close()
    assert bench.closed == [bench.watch]
    bench.optimizer = cast("Any", None)
    gc.collect()
    assert list(bench.finalized) == []


def test_rows_that_arrive_after_the_optimizer_was_collected_are_marked() -> None:
    bench = Bench()
    bench.step()
    ((_, note),) = bench.rows
    assert not note.state.closed
    bench.optimizer = cast("Any", None)
    gc.collect()
    assert note.state.closed
