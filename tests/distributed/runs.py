"""Whole runs of two processes that train together: one function per scenario, called on both.

A scenario's files are in ``runs/<its name>`` below the folder of the launch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, TypeAlias
from unittest.mock import patch

from torch import Tensor, distributed
from torch.nn.utils import clip_grad_norm_

from nissa import kernels
from nissa.gradients import capture
from nissa.gradients.weights import Weights
from nissa.kernels.moments import Layout, Thresholds
from nissa.kernels.reference import measure
from tests.distributed.playing import bare, replicas, shards, stage, unsharded, watched

LIMIT: Final = 0.01
"""Gradients are larger than that, and therefore clipped."""

FAILING: Final = 1
"""The step that the second rank cannot measure."""

Found: TypeAlias = Mapping[str, Any]


def replicas_of_which_one_exports() -> Found:
    """What DistributedDataParallel keeps alike is told once."""
    return {**watched("replicas_of_which_one_exports", replicas()), "truth": bare(unsharded())}


def replicas_that_all_export() -> Found:
    """Or by every rank."""
    return {
        **watched("replicas_that_all_export", replicas(), gradients__ranks="all"),
        "truth": bare(unsharded()),
    }


def replicas_of_which_the_first_exports() -> Found:
    """Or by global rank 0."""
    return {
        **watched("replicas_of_which_the_first_exports", replicas(), gradients__ranks="first"),
        "truth": bare(unsharded()),
    }


def shards_on_every_other_step() -> Found:
    """What fully_shard spreads is put together again."""
    return {
        **watched("shards_on_every_other_step", shards(), gradients__every_n_steps=2),
        "truth": bare(unsharded()),
    }


def shards_of_which_one_fails() -> Found:
    """The second rank cannot measure one step."""
    training = shards()
    with _kernel_that_fails(FAILING if distributed.get_rank() == 1 else None):
        found = watched("shards_of_which_one_fails", training)
    alone = shards()
    bare(alone)
    return {**found, "truth": bare(unsharded()), "bare": alone.state()}


def shards_of_which_one_has_no_copy() -> Found:
    """The second rank has no memory for a copy of its weights in one step."""
    training = shards()
    with _weights_that_fail(FAILING if distributed.get_rank() == 1 else None):
        found = watched("shards_of_which_one_has_no_copy", training)
    alone = shards()
    bare(alone)
    return {**found, "truth": bare(unsharded()), "bare": alone.state()}


def a_stage_per_rank() -> Found:
    """Nothing is shared, as in the stages of a pipeline."""
    found = watched("a_stage_per_rank", stage())
    return {**found, "truth": bare(stage())}


def shards_that_are_clipped() -> Found:
    """The norm of all shards together."""
    found = watched("shards_that_are_clipped", shards(), clip=LIMIT)
    alone, whole = shards(), unsharded()
    bare(alone, lambda: clip_grad_norm_(alone.model.parameters(), LIMIT))
    norms: list[float] = []
    truth = bare(whole, lambda: norms.append(float(clip_grad_norm_(whole.model.parameters(), LIMIT))))
    return {**found, "truth": truth, "norms": norms, "bare": alone.state()}


def replicas_left_alone() -> Found:
    """A training beside the same without Nissa."""
    alone = replicas()
    truth = bare(alone)
    return {**watched("replicas_left_alone", replicas()), "truth": truth, "bare": alone.state()}


def shards_left_alone() -> Found:
    """A training in shards beside the same without Nissa."""
    alone = shards()
    truth = bare(alone)
    return {**watched("shards_left_alone", shards()), "truth": truth, "bare": alone.state()}


@contextmanager
def _kernel_that_fails(at: int | None) -> Iterator[None]:
    """Let the kernel raise when it is called for the n-th time."""
    calls = count()

    def kernel(
        tensors: Sequence[Tensor], layout: Layout, thresholds: Thresholds, scale: Tensor | None = None
    ) -> Tensor:
        if next(calls) == at:
            raise MemoryError("of this rank")
        return measure(tensors, layout, thresholds, scale)

    kernels._CHOSEN["cpu"] = kernel
    try:
        yield
    finally:
        del kernels._CHOSEN["cpu"]


@contextmanager
def _weights_that_fail(at: int | None) -> Iterator[None]:
    """Let the n-th attempt to copy weights raise."""
    calls = count()

    def weights(parameters: Sequence[Tensor], *, updates: bool) -> Weights:
        if next(calls) == at:
            raise MemoryError("of this rank")
        return Weights(parameters, updates=updates)

    with patch.object(capture, "Weights", weights):
        yield


RUNS: tuple[Callable[[], Found], ...] = (
    replicas_of_which_one_exports,
    replicas_that_all_export,
    replicas_of_which_the_first_exports,
    shards_on_every_other_step,
    shards_of_which_one_fails,
    shards_of_which_one_has_no_copy,
    a_stage_per_rank,
    shards_that_are_clipped,
    replicas_left_alone,
    shards_left_alone,
)
