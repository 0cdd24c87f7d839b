"""Blocks of steps and of gradient samples as arrays: the input of the rules.

A block holds consecutive measurements of one watch, in order. The judgements of rules do not depend on where a sequence is
split into blocks. `missed` is the number of measurements lost before each entry. With it, rules can distinguish neighbours
in a block from neighbours in time, and the first entry received from the first one of training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from nissa.kernels.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.hub.measurements import GradientsMeasured, ReplicasCompared, StepMeasured, StepSkipped
    from nissa.hub.program_facts import ProgramFacts

_Entry = TypeVar("_Entry")
_STATISTICS: Final = tuple(each.name for each in fields(Moments) if each.name not in {"buckets", "bucket_range"})


@dataclass(frozen=True, slots=True)
class OptionalArray:
    """Values of which some are absent.

    Example:
        The losses 0.5, NaN and "not logged" are ``values == [0.5, nan, nan]`` and ``present == [True, True, False]``.

    Args:
        values: Measured values; NaN where absent, and where NaN was measured.
        present: True where a value was measured.
    """

    values: "NDArray[np.float64]"
    present: "NDArray[np.bool_]"

    @staticmethod
    def of(values: Iterable[float | None]) -> "OptionalArray":
        """Return the array of values; None stands for an absent one."""
        known = list(values)
        present = np.array([each is not None for each in known], dtype=bool)
        return OptionalArray(np.array(known, dtype=np.float64), present)  # numpy reads None as NaN

    @property
    def finite(self) -> "NDArray[np.bool_]":
        """Mask of values that are present and finite."""
        return np.isfinite(self.values)

    @property
    def nonfinite(self) -> "NDArray[np.bool_]":
        """Mask of values that are present, and NaN or infinite."""
        return self.present & ~np.isfinite(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBlock:
    """Consecutive steps of one watch: S entries, each array of shape ``(S,)``.

    The other fields are documented at `StepMeasured`.

    Args:
        steps: Step numbers.
        times: End times of the steps, nanoseconds since the Unix epoch.
        missed: Number of steps lost between the previous entry and this one. For the first entry that a rule receives, it
            counts from the beginning of the watch.
        idle_rates: Mask of steps at which every parameter group has a learning rate of 0.
        epochs: Identity of the epoch of each step, None outside epochs.
        programs: Facts for contracts; None at steps at which none were collected.
        signals: Values for contracts by name.
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
    idle_rates: "NDArray[np.bool_]"
    epochs: tuple[int | None, ...]
    programs: "tuple[ProgramFacts | None, ...]"
    signals: "tuple[Mapping[str, float], ...]"

    def __len__(self) -> int:
        return len(self.steps)

    @staticmethod
    def of(steps: "Sequence[StepMeasured]") -> "StepBlock":
        """Return the block of one or more consecutive steps of one watch.

        Raises:
            ValueError: The sequence is empty, or its steps belong to several watches.
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
            idle_rates=np.array(
                [each.learning_rate == 0 and not any(each.learning_rates) for each in steps], dtype=bool
            ),
            epochs=tuple(None if each.epoch_ids is None else each.epoch_ids.span_id for each in steps),
            programs=tuple(each.program for each in steps),
            signals=tuple(each.signals for each in steps),
        )

    def finite_losses(self) -> "Iterator[tuple[int, float | None]]":
        """Iterate over the number of steps lost before each step, and its loss; None if absent or not finite."""
        entries = zip(self.missed.tolist(), self.losses.values.tolist(), self.losses.finite.tolist(), strict=True)
        return ((missed, loss if finite else None) for missed, loss, finite in entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipBlock:
    """Consecutive measurements of steps that loss scaling skipped, of one watch; each array has shape ``(S,)``.

    Args:
        steps: Number of completed steps before the skipped ones.
        counts: Number of skipped steps.
        missed: Zeros: the counts are cumulative, so that nothing is lost.
    """

    model_name: str | None
    steps: "NDArray[np.int64]"
    times: "NDArray[np.int64]"
    missed: "NDArray[np.int64]"
    counts: "NDArray[np.int64]"

    @staticmethod
    def of(skips: "Sequence[StepSkipped]") -> "SkipBlock":
        """Return the block of one or more measurements of one watch."""
        return SkipBlock(
            model_name=skips[0].model_name,
            steps=_integers(each.step for each in skips),
            times=_integers(each.time_unix_nano for each in skips),
            missed=_integers(0 for _ in skips),
            counts=_integers(each.count for each in skips),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBlock:
    """Consecutive comparisons of one watch with its replicas; each array has shape ``(C,)``.

    Args:
        steps: Number of completed steps.
        missed: Zeros: each comparison stands for itself.
        entries: The comparisons.
    """

    model_name: str | None
    steps: "NDArray[np.int64]"
    times: "NDArray[np.int64]"
    missed: "NDArray[np.int64]"
    entries: "tuple[ReplicasCompared, ...]"

    @staticmethod
    def of(compared: "Sequence[ReplicasCompared]") -> "ReplicaBlock":
        """Return the block of one or more comparisons of one watch."""
        return ReplicaBlock(
            model_name=compared[0].model_name,
            steps=_integers(each.step for each in compared),
            times=_integers(each.time_unix_nano for each in compared),
            missed=_integers(0 for _ in compared),
            entries=tuple(compared),
        )


@dataclass(frozen=True, kw_only=True)
class SampleBlock:
    """Gradients of consecutive sampled steps of one watch: S samples of the same P layers.

    Args:
        names: Names of the P layers; a layer is a parameter or a block of parameters.
        steps: Numbers of the sampled steps, shape ``(S,)``.
        times: End times of the sampled steps, nanoseconds since the Unix epoch, shape ``(S,)``.
        missed: Number of samples lost between the previous sample and this one, shape ``(S,)``. For the first sample that
            a rule receives, it counts from the beginning of the watch.
        moments: Statistics of shape ``(S, P)``, without buckets. Statistics derived from them element by element, such as
            ``norm``, have the same shape. Use the field ``global_norm`` below instead of theirs.
        global_norm: Global gradient norm per sample, absent if no layer had a gradient, shape ``(S,)``.
        score: Health score per sample, absent if no layer had a gradient, shape ``(S,)``.
        layers: Number of layers with a gradient, shape ``(S,)``.
        nonfinite: Mask of layers with an element that is NaN or infinite, shape ``(S, P)``.
        vanishing: Mask of layers that vanish as defined by `GradientHealth`, shape ``(S, P)``; likewise ``exploding``.
        idle: Per sample, the parameters that require a gradient and had none.
        weight_norms: L2 norms of the weights, shape ``(S, P)``, None if not measured.
        update_ratios: Norm of the step's change over that of the weights, shape ``(S, P)``; NaN for weights of norm 0,
            None if not measured.
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
        """Return the block of one or more consecutive samples of the same layers of one watch.

        Raises:
            ValueError: The sequence is empty, or its samples differ in watch, layers or measured quantities.
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
        """L2 norm of the finite elements, shape ``(S, P)``; NaN without any."""
        return self.moments.norm

    @cached_property
    def mean(self) -> "NDArray[np.float64]":
        """Mean of the finite elements, shape ``(S, P)``; NaN without any."""
        return self.moments.mean

    @cached_property
    def std(self) -> "NDArray[np.float64]":
        """Unbiased standard deviation of the finite elements, shape ``(S, P)``; NaN below two of them."""
        return self.moments.std

    @cached_property
    def zero_fraction(self) -> "NDArray[np.float64]":
        """Share of exact zeros among the finite elements, shape ``(S, P)``; NaN without any."""
        return self.moments.zero_fraction

    @cached_property
    def biases(self) -> "NDArray[np.bool_]":
        """Mask of layers that are biases, judged by their names, shape ``(P,)``."""
        return np.array([name.rpartition(".")[2] == "bias" for name in self.names], dtype=bool)

    @cached_property
    def broken(self) -> "NDArray[np.bool_]":
        """Mask of samples with an element that is NaN or infinite, shape ``(S,)``."""
        found: NDArray[np.bool_] = np.asarray(self.nonfinite.any(axis=1))
        return found

    def trusted_norms(self) -> "Iterator[tuple[int, float | None]]":
        """Iterate over the number of samples lost before each sample, and its global norm, None if unreliable.

        A norm is unreliable if no layer had a gradient, or if elements were NaN or infinite, since norms exclude these.
        """
        trusted = self.global_norm.present & ~self.broken
        entries = zip(self.missed.tolist(), self.global_norm.values.tolist(), trusted.tolist(), strict=True)
        return ((missed, norm if known else None) for missed, norm, known in entries)

    def named(self, chosen: "NDArray[np.bool_] | NDArray[np.intp]") -> tuple[str, ...]:
        """Return the names of chosen layers: for a mask in the order of `names`, for indices in the order of these."""
        return tuple(self.names[row] for row in (np.flatnonzero(chosen) if chosen.dtype == bool else chosen))


def skip_blocks(skips: "Iterable[StepSkipped]") -> "Iterator[SkipBlock]":
    """Split a sequence into blocks; a new block begins where the watch changes."""
    return (SkipBlock.of(list(part)) for _, part in groupby(skips, lambda each: each.model_name))


def replica_blocks(compared: "Iterable[ReplicasCompared]") -> "Iterator[ReplicaBlock]":
    """Split a sequence into blocks; a new block begins where the watch changes."""
    return (ReplicaBlock.of(list(part)) for _, part in groupby(compared, lambda each: each.model_name))


def step_blocks(steps: "Iterable[StepMeasured]") -> "Iterator[StepBlock]":
    """Split a sequence into blocks; a new block begins where the watch changes."""
    return (StepBlock.of(list(part)) for _, part in groupby(steps, _step_key))


def sample_blocks(samples: "Iterable[GradientsMeasured]") -> "Iterator[SampleBlock]":
    """Split a sequence into blocks; a new block begins where the watch, its layers or the measured quantities change."""
    return (SampleBlock.of(list(part)) for _, part in groupby(samples, _sample_key))


def _step_key(step: "StepMeasured") -> tuple[Any, ...]:
    return step.env_id, step.model_name, step.primary


def _sample_key(sample: "GradientsMeasured") -> tuple[Any, ...]:
    measured = sample.weight_norms is not None, sample.update_ratios is not None
    return sample.env_id, sample.model_name, *measured, sample.names


def _only(entries: Sequence[_Entry], key: Callable[[_Entry], tuple[Any, ...]]) -> _Entry:
    """Return the first entry, after a check that all entries have the same key."""
    if not entries:
        raise ValueError("A block needs at least one entry.")
    first = key(entries[0])
    if any(key(each) != first for each in entries[1:]):
        raise ValueError(f"All entries of a block belong together; the first is of {first}.")
    return entries[0]


def _integers(values: Iterable[int]) -> "NDArray[np.int64]":
    return np.array(list(values), dtype=np.int64)


def _stacked(moments: Sequence[Moments]) -> Moments:
    if len(moments) == 1:  # avoid a copy of a single sample, the usual case while training is slow
        columns: dict[str, Any] = {name: getattr(moments[0], name)[np.newaxis] for name in _STATISTICS}
    else:
        columns = {name: np.stack([getattr(each, name) for each in moments]) for name in _STATISTICS}
    return Moments(**columns)


def _stack(arrays: "Sequence[NDArray[Any] | None]") -> "NDArray[Any] | None":
    known = [each for each in arrays if each is not None]
    return np.stack(known) if known else None


def _rows(names: tuple[str, ...], chosen: Sequence[tuple[str, ...]]) -> "NDArray[np.bool_]":
    """Return a mask of shape ``(S, P)`` from the chosen names of each sample."""
    mask = np.zeros((len(chosen), len(names)), dtype=bool)
    if any(chosen):
        position = {name: row for row, name in enumerate(names)}
        for row, layers in zip(mask, chosen, strict=True):
            row[[position[name] for name in layers]] = True
    return mask
