"""Cause of different weights on ranks that should have equal ones, from what the ranks reported about one step.

Where gradients are averaged, they are equal on all ranks even after weights have diverged. Gradients therefore tell what happened:
those of a rank that clips alone have a common factor, and those of a module that was called without its wrapper have nothing in
common.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Final

from nissa.distributed.replica_reports import Detail

__all__ = ["Cause", "Divergence", "diagnose"]

_SAME_FACTOR: Final = 1e-3
"""Relative spread up to which gradients of all parameters have a common factor; rounding of float16 stays below it."""

_FEW: Final = 0.25
"""Share of parameters up to which a difference concerns single ones. A skipped or different step changes all of them."""

_MOST_RANKS: Final = 8
"""Maximum number of ranks whose values are named in the evidence."""


class Cause(StrEnum):
    """Pattern of differences."""

    LAYOUT = "layout"
    SKIPPED_STEP = "skipped_step"
    LEARNING_RATE = "learning_rate"
    OPTIMIZER_SETTINGS = "optimizer_settings"
    CLIPPING = "clipping"
    UNWRAPPED = "unwrapped"
    UNREDUCED = "unreduced_gradients"
    INITIAL_WEIGHTS = "initial_weights"
    CORRUPTION = "corruption"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Divergence:
    """Explanation of different weights.

    Args:
        differing: Ranks in the minority; all without a majority.
        layers: Parameters that differ, in the order of the model.
        evidence: Numbers that the cause rests on.
    """

    differing: tuple[int, ...]
    layers: tuple[str, ...]
    cause: Cause
    evidence: tuple[str, ...]


def diagnose(details: Mapping[int, Detail], *, equal_at: int | None, presumed: bool) -> Divergence | None:
    """Return the explanation of different weights; None if the ranks are presumed replicas and were none.

    Args:
        details: State of each rank at the step.
        equal_at: Newest step with equal weights; None if there was none.
        presumed: Whether nothing but equal weights at first states that the ranks are replicas.
    """
    differing = _minority({rank: tuple(each.digests) for rank, each in details.items()})
    if len({tuple(each.names) for each in details.values()}) > 1:
        return Divergence(differing, _other_names(details), Cause.LAYOUT, ())
    layers = _differing_layers(details)
    cause, evidence = _cause(details, len(layers), equal_at)
    if presumed and (cause not in {Cause.UNWRAPPED, Cause.UNREDUCED} or _deliberate(details, layers)):
        return None
    return Divergence(differing, layers, cause, evidence)


def _cause(details: Mapping[int, Detail], layers: int, equal_at: int | None) -> tuple[Cause, tuple[str, ...]]:
    stated = _stated_difference(details)
    if stated is not None:
        return stated
    factors = _factors(details)
    if factors is None:  # gradients are not known
        return Cause.UPDATE, ()
    if factors:
        return _different_gradients(details, factors)
    few = max(1, int(_FEW * len(next(iter(details.values())).names)))
    common = "gradients=equal"
    if equal_at is None or layers <= few:
        return (Cause.INITIAL_WEIGHTS if equal_at is None else Cause.CORRUPTION), (common,)
    passes = _other_passes(details)
    return (Cause.SKIPPED_STEP if passes else Cause.UPDATE), (common, *passes)


def _different_gradients(details: Mapping[int, Detail], factors: Sequence[float]) -> tuple[Cause, tuple[str, ...]]:
    clipped = _common_factor(factors)
    if clipped is not None:
        return Cause.CLIPPING, (f"gradient_factor={clipped:.6g}",)
    differing = f"gradients_differ={len(factors)}"
    passes = _other_passes(details)
    if passes and any(each.wrapped for each in details.values()):
        return Cause.SKIPPED_STEP, (differing, *passes)
    unwrapped = all(each.wrapped is False for each in details.values())
    return (Cause.UNWRAPPED if unwrapped else Cause.UNREDUCED), (differing,)


def _other_passes(details: Mapping[int, Detail]) -> tuple[str, ...]:
    """Return the forward passes of each rank, if one has made more of them for the same number of steps."""
    forwards = {rank: each.forwards for rank, each in details.items()}
    if None in forwards.values() or len(set(forwards.values())) == 1:
        return ()
    return (_values("forward_passes", forwards),)


def _stated_difference(details: Mapping[int, Detail]) -> tuple[Cause, tuple[str, ...]] | None:
    """Return the cause that ranks state themselves: different settings, or different numbers of steps."""
    if _differ(details, lambda each: each.skipped):
        return Cause.SKIPPED_STEP, (_values("skipped_steps", {rank: each.skipped for rank, each in details.items()}),)
    if _differ(details, lambda each: tuple(each.rates)):
        rates = {rank: ",".join(map(_number, each.rates)) for rank, each in details.items()}
        return Cause.LEARNING_RATE, (_values("learning_rates", rates),)
    if _differ(details, lambda each: tuple(sorted(each.settings.items()))):
        return Cause.OPTIMIZER_SETTINGS, _other_settings(details)
    if _differ(details, lambda each: each.clip):
        return Cause.CLIPPING, (_values("max_norm", {rank: each.clip for rank, each in details.items()}),)
    return None


def _deliberate(details: Mapping[int, Detail], layers: Sequence[str]) -> bool:
    """Whether ranks that nothing states to be replicas look like stages of a pipeline, or share only a part of their weights."""
    if any(each.received or each.wrapped for each in details.values()):
        return True
    one = next(iter(details.values()))
    trained = {_bare(name) for name, norm in zip(one.names, one.norms, strict=True) if norm is not None}
    return not trained or not trained <= set(layers)


def _minority(states: Mapping[int, Hashable]) -> tuple[int, ...]:
    """Return the ranks whose state is not the most frequent one; all if there is none."""
    (common, number), *others = Counter(states.values()).most_common(2)
    if number == 1 or (others and others[0][1] == number):
        return tuple(states)
    return tuple(rank for rank, state in states.items() if state != common)


def _differing_layers(details: Mapping[int, Detail]) -> tuple[str, ...]:
    columns = zip(*(each.digests for each in details.values()), strict=True)
    names = next(iter(details.values())).names
    return tuple(_bare(name) for name, column in zip(names, columns, strict=True) if len(set(column)) > 1)


def _other_names(details: Mapping[int, Detail]) -> tuple[str, ...]:
    """Return the parameters that not all ranks have with the same shape and dtype."""
    owners = Counter(name for each in details.values() for name in each.names)
    return tuple(dict.fromkeys(_bare(name) for name, number in owners.items() if number < len(details)))


def _bare(name: str) -> str:
    """Return the name without shape and dtype."""
    return name.partition("\t")[0]


def _factors(details: Mapping[int, Detail]) -> list[float] | None:
    """Return the largest over the smallest gradient norm of each parameter where they differ; None without any norm."""
    found, known = list[float](), False
    for norms in zip(*(each.norms for each in details.values()), strict=True):
        numbers = [norm for norm in norms if norm is not None and isfinite(norm)]
        if len(numbers) < len(norms):
            continue
        known = True
        low, high = min(numbers), max(numbers)
        if low != high:
            found.append(high / low if low else float("inf"))
    return found if known else None


def _common_factor(factors: Sequence[float]) -> float | None:
    """Return the factor that is common to all parameters whose gradients differ; None if there is none."""
    low, high = min(factors), max(factors)
    alike = isfinite(high) and high - low <= _SAME_FACTOR * high and low > 1 + _SAME_FACTOR
    return high if alike and len(factors) > 1 else None


def _other_settings(details: Mapping[int, Detail]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for each in details.values() for key in each.settings)
    values = {key: {rank: each.settings.get(key) for rank, each in details.items()} for key in keys}
    return tuple(_values(key, of_ranks) for key, of_ranks in values.items() if len(set(of_ranks.values())) > 1)


def _differ(details: Mapping[int, Detail], what: Callable[[Detail], Hashable]) -> bool:
    return len({what(each) for each in details.values()}) > 1


def _values(name: str, by_rank: Mapping[int, object]) -> str:
    """Return values of ranks, for example ``learning_rates=0.1 (rank 0), 0.2 (rank 1)``; of many ranks the rarest values."""
    frequency = Counter(map(str, by_rank.values()))
    rarest = sorted(by_rank, key=lambda rank: frequency[str(by_rank[rank])])[:_MOST_RANKS]
    shown = [f"{_number(by_rank[rank])} (rank {rank})" for rank in sorted(rarest)]
    return f"{name}={', '.join(shown)}{', ...' if len(by_rank) > _MOST_RANKS else ''}"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
