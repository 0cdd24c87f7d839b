"""Runs of two processes under a budget of overhead, one of which measures much more slowly than the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import sleep
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, distributed

import nissa
from nissa import kernels
from nissa.hub.measurements import StepMeasured
from nissa.kernels.moments import Layout, Thresholds
from nissa.kernels.reference import measure
from tests.distributed.playing import Training, replicas, shards

STEPS: Final = 144
BUDGET: Final = 0.1
SLOW: Final = 0.02
"""Seconds that one rank takes longer to measure, which is more than a step takes."""

Found: TypeAlias = Mapping[str, Any]


def replicas_under_a_budget() -> Found:
    """One rank alone would thin less."""
    return _found("replicas_under_a_budget", replicas(), replicas())


def shards_under_a_budget() -> Found:
    """Sampled steps are collectives, so that ranks that sampled others would wait for each other forever."""
    return _found("shards_under_a_budget", shards(), shards())


def replicas_of_which_one_is_watched() -> Found:
    """The other has no run at all."""
    if distributed.get_rank() == 0:
        return _found("replicas_of_which_one_is_watched", replicas(), replicas())
    for training in (replicas(), replicas()):
        _train(training)
    return {}


def _found(title: str, training: Training, alone: Training) -> Found:
    memory, hub = nissa.MemoryBackend(), nissa.get_hub()
    with (
        _slow(distributed.get_rank() == 1 or title == "replicas_of_which_one_is_watched"),
        nissa.start(
            "diagnostic",
            backends=[memory],
            overhead_budget=BUDGET,
            files__directory=f"runs/{title}",
            console__enabled=False,
        ) as run,
    ):
        run.watch(training.model, training.optimizer)
        _train(training)
        run.flush()
        intervals = [each.sampling_interval for each in memory.measurements if isinstance(each, StepMeasured)]
    _train(alone)
    return {
        "sampled": [step for step, interval in enumerate(intervals) if interval is not None],
        "intervals": [interval for interval in intervals if interval is not None],
        "faults": dict(hub.error_boundary.faults),
        "state": training.state(),
        "bare": alone.state(),
    }


def _train(training: Training) -> None:
    torch.manual_seed(7)
    for step in range(STEPS):
        training.gradients(step)
        training.optimizer.step()


@contextmanager
def _slow(on: bool) -> Iterator[None]:
    def kernel(
        tensors: Sequence[Tensor], layout: Layout, thresholds: Thresholds, scale: Tensor | None = None
    ) -> Tensor:
        sleep(SLOW if on else 0)
        return measure(tensors, layout, thresholds, scale)

    kernels._CHOSEN["cpu"] = kernel
    try:
        yield
    finally:
        del kernels._CHOSEN["cpu"]


BUDGETS: tuple[Callable[[], Found], ...] = (
    replicas_under_a_budget,
    shards_under_a_budget,
    replicas_of_which_one_is_watched,
)
