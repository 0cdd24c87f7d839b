"""Blocks of steps and of gradient samples as arrays: the input of the rules.

A block holds consecutive measurements of one watch, in order. A sequence of measurements may be split into blocks
anywhere; no rule's verdict depends on where. `missed` states per entry how many measurements were lost before it, so that
a rule never takes neighbours in a block for neighbours in time, nor the first entry that it gets for the beginning.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from nissa.kernels.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.hub.measurements import GradientsMeasured, StepMeasured

_Entry = TypeVar("_Entry")
_STATISTICS: Final = tuple(each.name for each in fields(Moments) if each.name not in {"buckets", "bucket_range"})


@dataclass(frozen=True, slots=True)
class OptionalArray:
    """Numbers of which some are absent.

    Example:
        The losses 0.5, NaN and "not logged" are ``values == [0.5, nan, nan]`` and ``present == [True, True, False]``.

    Args:
        values: NaN where absent, and where NaN was measured.
        present: Whether there is a value.
    """

    values: "NDArray[np.float64]"
    present: "NDArray[np.bool_]"

    @staticmethod
    def of(values: Iterable[float | None]) -> "OptionalArray":
        """Return the array of some values, with None for those that are absent."""
        known = list(values)
        present = np.array([each is not None for each in known], dtype=bool)
        return OptionalArray(np.array(known, dtype=np.float64), present)  # numpy reads None as NaN

    @property
    def finite(self) -> "NDArray[np.bool_]":
        """Whether there is a value that is neither NaN nor infinite."""
        return np.isfinite(self.values)

    @property
    def nonfinite(self) -> "NDArray[np.bool_]":
        """Whether there is a value, and it is NaN or infinite."""
        return self.present & ~np.isfinite(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBlock:
    """Consecutive steps of one watch: S entries, each array of shape ``(S,)``.

    Fields mean what those of `StepMeasured` mean.

    Args:
        steps: Their numbers.
        times: When they ended, nanoseconds since the Unix epoch.
        missed: Steps that were lost between the entry before and this one; of the first entry that a rule ever gets, those
            between the beginning of the watch and it.
    """

    env_id: str | None
    model_name: str | None
    primary: bool
    steps: "NDArray[np.int64]"
    times: "NDArray[np.int64]"
    missed: "NDArray[np.int64]"
    losses: OptionalArray
    durations: OptionalArray
    learning_rates: OptionalArray
    clip_norms: OptionalArray
    clip_factors: OptionalArray

    def __len__(self) -> int:
        return len(self.steps)

    @staticmethod
    def of(steps: "Sequence[StepMeasured]") -> "StepBlock":
        """Return the block of one or more steps of one watch, in their order.

        Raises:
            ValueError: There is no step, or they are not of one watch.
        """
        first = _only(steps, _step_key)
        return StepBlock(
            env_id=first.env_id,
            model_name=first.model_name,
            primary=first.primary,
            steps=_integers(each.step for each in steps),
            times=_integers(each.time_unix_nano for each in steps),
            missed=_integers(each.missed for each in steps),
            losses=OptionalArray.of(each.loss for each in steps),
            durations=OptionalArray.of(each.duration for each in steps),
            learning_rates=OptionalArray.of(each.learning_rate for each in steps),
            clip_norms=OptionalArray.of(each.clip_norm for each in steps),
            clip_factors=OptionalArray.of(each.clip_factor for each in steps),
        )

    def finite_losses(self) -> "Iterator[tuple[int, float | None]]":
        """Return for each step how many were lost before it, and its loss; None where that is absent or not finite."""
        entries = zip(self.missed.tolist(), self.losses.values.tolist(), self.losses.finite.tolist(), strict=True)
        return ((missed, loss if finite else None) for missed, loss, finite in entries)


@dataclass(frozen=True, kw_only=True)
class SampleBlock:
    """Gradients of consecutive sampled steps of one watch: S samples of the same P layers.

    Args:
        names: Of the P layers: a parameter each, or a block of parameters.
        steps: Numbers of the sampled steps, shape ``(S,)``.
        times: When these ended, nanoseconds since the Unix epoch, shape ``(S,)``.
        missed: Samples that were lost between the one before and this one, shape ``(S,)``; of the first sample that a rule
            ever gets, those between the beginning of the watch and it.
        moments: Statistics of shape ``(S, P)``, without buckets. What is derived element by element, such as ``norm``, has
            that shape too; ``global_norm`` is the one below.
        global_norm: Of a sample, absent where no layer had a gradient, shape ``(S,)``.
        score: Health of a sample, absent where no layer had a gradient, shape ``(S,)``.
        layers: Layers with a gradient, shape ``(S,)``.
        nonfinite: Layers with an element that is NaN or infinite, shape ``(S, P)``.
        vanishing: Layers that vanish in the sense of `GradientHealth`, shape ``(S, P)``; likewise ``exploding``.
        idle: By sample, the parameters that require a gradient and had none.
        weight_norms: Shape ``(S, P)``, None where not measured.
        update_ratios: Shape ``(S, P)``, NaN where the norm of the weights is 0, None where not measured.
    """

    env_id: str | None
    model_name: str | None
    names: tuple[str, ...]
    steps: "NDArray[np.int64]"
    times: "NDArray[np.int64]"
    missed: "NDArray[np.int64]"
    moments: Moments
    global_norm: OptionalArray
    score: OptionalArray
    layers: "NDArray[np.int64]"
    nonfinite: "NDArray[np.bool_]"
    vanishing: "NDArray[np.bool_]"
    exploding: "NDArray[np.bool_]"
    idle: tuple[tuple[str, ...], ...]
    weight_norms: "NDArray[np.float64] | None" = None
    update_ratios: "NDArray[np.float64] | None" = None

    def __len__(self) -> int:
        return len(self.steps)

    @staticmethod
    def of(samples: "Sequence[GradientsMeasured]") -> "SampleBlock":
        """Return the block of one or more samples of the same layers of one watch, in their order.

        Raises:
            ValueError: There is no sample, or they differ in their watch, their layers, or in what was measured.
        """
        first = _only(samples, _sample_key)
        health = [each.health for each in samples]
        return SampleBlock(
            env_id=first.env_id,
            model_name=first.model_name,
            names=first.names,
            steps=_integers(each.step for each in samples),
            times=_integers(each.time_unix_nano for each in samples),
            missed=_integers(each.missed for each in samples),
            moments=_stacked([each.moments for each in samples]),
            global_norm=OptionalArray.of(each.global_norm for each in health),
            score=OptionalArray.of(each.score for each in health),
            layers=_integers(each.layers for each in health),
            nonfinite=_rows(first.names, [each.nonfinite for each in health]),
            vanishing=_rows(first.names, [each.vanishing for each in health]),
            exploding=_rows(first.names, [each.exploding for each in health]),
            idle=tuple(each.idle for each in samples),
            weight_norms=_stack([each.weight_norms for each in samples]),
            update_ratios=_stack([each.update_ratios for each in samples]),
        )

    @cached_property
    def norm(self) -> "NDArray[np.float64]":
        """L2 norm, shape ``(S, P)``; NaN where there is no finite element."""
        return self.moments.norm

    @cached_property
    def mean(self) -> "NDArray[np.float64]":
        """Mean of the finite elements, shape ``(S, P)``; NaN where there are none."""
        return self.moments.mean

    @cached_property
    def std(self) -> "NDArray[np.float64]":
        """Unbiased standard deviation of the finite elements, shape ``(S, P)``; NaN below two of them."""
        return self.moments.std

    @cached_property
    def zero_fraction(self) -> "NDArray[np.float64]":
        """Share of the finite elements that is exactly zero, shape ``(S, P)``; NaN where there are none."""
        return self.moments.zero_fraction

    @cached_property
    def biases(self) -> "NDArray[np.bool_]":
        """Which layers are biases, by their names, shape ``(P,)``."""
        return np.array([name.rpartition(".")[2] == "bias" for name in self.names], dtype=bool)

    @cached_property
    def broken(self) -> "NDArray[np.bool_]":
        """Samples in which an element is NaN or infinite, shape ``(S,)``."""
        found: NDArray[np.bool_] = np.asarray(self.nonfinite.any(axis=1))
        return found

    def trusted_norms(self) -> "Iterator[tuple[int, float | None]]":
        """Return for each sample how many were lost before it, and its global norm; None where that is not the whole.

        It is not where no layer had a gradient, and where elements were not finite, which no norm covers.
        """
        trusted = self.global_norm.present & ~self.broken
        entries = zip(self.missed.tolist(), self.global_norm.values.tolist(), trusted.tolist(), strict=True)
        return ((missed, norm if known else None) for missed, norm, known in entries)

    def named(self, chosen: "NDArray[np.bool_] | NDArray[np.intp]") -> tuple[str, ...]:
        """Return the names of some layers: of a mask in the order of `names`, of indices in theirs."""
        return tuple(self.names[row] for row in (np.flatnonzero(chosen) if chosen.dtype == bool else chosen))


def step_blocks(steps: "Iterable[StepMeasured]") -> "Iterator[StepBlock]":
    """Split a sequence into blocks: a new one wherever the watch changes."""
    return (StepBlock.of(list(part)) for _, part in groupby(steps, _step_key))


def sample_blocks(samples: "Iterable[GradientsMeasured]") -> "Iterator[SampleBlock]":
    """Split a sequence into blocks: a new one wherever the watch, its layers, or the kind of what was measured changes."""
    return (SampleBlock.of(list(part)) for _, part in groupby(samples, _sample_key))


def _step_key(step: "StepMeasured") -> tuple[Any, ...]:
    return step.env_id, step.model_name, step.primary


def _sample_key(sample: "GradientsMeasured") -> tuple[Any, ...]:
    measured = sample.weight_norms is not None, sample.update_ratios is not None
    return sample.env_id, sample.model_name, *measured, sample.names


def _only(entries: Sequence[_Entry], key: Callable[[_Entry], tuple[Any, ...]]) -> _Entry:
    """Return the first entry, after a check that all have its key."""
    if not entries:
        raise ValueError("A block has at least one entry.")
    first = key(entries[0])
    if any(key(each) != first for each in entries[1:]):
        raise ValueError(f"All entries of a block belong together; the first is of {first}.")
    return entries[0]


def _integers(values: Iterable[int]) -> "NDArray[np.int64]":
    return np.array(list(values), dtype=np.int64)


def _stacked(moments: Sequence[Moments]) -> Moments:
    if len(moments) == 1:  # the sample that comes alone, as most do while training is slow, is not copied
        columns: dict[str, Any] = {name: getattr(moments[0], name)[np.newaxis] for name in _STATISTICS}
    else:
        columns = {name: np.stack([getattr(each, name) for each in moments]) for name in _STATISTICS}
    return Moments(**columns)


def _stack(arrays: "Sequence[NDArray[Any] | None]") -> "NDArray[Any] | None":
    known = [each for each in arrays if each is not None]
    return np.stack(known) if known else None


def _rows(names: tuple[str, ...], chosen: Sequence[tuple[str, ...]]) -> "NDArray[np.bool_]":
    """Return a mask of shape ``(S, P)`` from the names that are chosen in each sample."""
    mask = np.zeros((len(chosen), len(names)), dtype=bool)
    if any(chosen):
        position = {name: row for row, name in enumerate(names)}
        for row, layers in zip(mask, chosen, strict=True):
            row[[position[name] for name in layers]] = True
    return mask
