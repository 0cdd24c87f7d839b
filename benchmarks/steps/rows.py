"""From pairs of blocks to the lines of the results; arithmetic alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.steps.statistics import Estimate, extra, mean, times

Pairs = Sequence[Mapping[str, float]]
"""Seconds of each pair of blocks, under the names of `PAIR`."""

PAIR: Final = ("turn", "steps", "bare", "watched", "bare_busy", "watched_busy", "inside", "background")
"""What a pair says: the turn of its process; timed steps of a block; seconds bare and watched; the same as CPU time of the
process; and what of it was in calls and optimizer hooks of the way, and on threads of its own."""

STEPS: Final = (
    "model",
    "way",
    "version",
    "threads",
    "pairs",
    "bare_ms",
    *(f"{name}{end}" for name in ("ratio", "busy", "own") for end in ("", "_low", "_high")),
    "sample_ms",
    "sample_low",
    "sample_high",
    "reads",
    "operations",
    "peak_mib",
    "bytes",
)
LIVE: Final = (
    "model",
    "profile",
    *(f"{name}{end}" for name in ("told", "took", "factor") for end in ("", "_low", "_high")),
)


def interval(name: str, estimate: Estimate, form: str) -> dict[str, str]:
    """Return an estimate as three columns."""
    return {
        name: format(estimate.value, form),
        f"{name}_low": format(estimate.low, form),
        f"{name}_high": format(estimate.high, form),
    }


def timing(pairs: Pairs, every: int, *, apart: bool) -> dict[str, Any]:
    """Return what time says of a way.

    Args:
        pairs: At least one.
        every: Steps from one sample to the next.
        apart: Whether its own time can be told apart from that of training.
    """
    bare = [pair["bare"] for pair in pairs]
    per_step = sum(bare) / sum(pair["steps"] for pair in pairs)
    ratio = extra([pair["watched"] for pair in pairs], bare, _turns(pairs))
    busy = extra([pair["watched_busy"] for pair in pairs], [pair["bare_busy"] for pair in pairs], _turns(pairs))
    sample = ratio.scaled(per_step * every * 1000)
    row = {
        "pairs": len(pairs),
        "bare_ms": f"{per_step * 1000:.1f}",
        **interval("ratio", ratio, ".5f"),
        **interval("busy", busy, ".5f"),
        "sample_ms": f"{sample.value:.3f}",
        "sample_low": f"{sample.low:.3f}",
        "sample_high": f"{sample.high:.3f}",
    }
    return row | (interval("own", own(pairs), ".5f") if apart else {})


def own(pairs: Pairs) -> Estimate:
    """Return the time in the way's calls and hooks and on its threads, as a fraction of the bare time."""
    bare = [pair["bare"] for pair in pairs]
    return extra([pair["bare"] + pair["inside"] + pair["background"] for pair in pairs], bare, _turns(pairs))


def _turns(pairs: Pairs) -> list[float]:
    return [pair["turn"] for pair in pairs]


def counted(watched: Mapping[str, float], bare: Mapping[str, float]) -> dict[str, int]:
    """Return reads and operations that a way adds to as many steps as it takes one sample of."""
    return {name: round(watched[name] - bare[name]) for name in ("reads", "operations")}


def live(told: Sequence[float], pairs: Pairs) -> dict[str, str]:
    """Compare what a run told of its cost with what watching took, both as a share of watched time.

    Args:
        told: Its ratios.
        pairs: Of the same way, in the same process.
    """
    says = mean(told)
    less = extra([pair["bare"] for pair in pairs], [pair["watched"] for pair in pairs], _turns(pairs))
    took = Estimate(-less.value, -less.high, -less.low)
    return {
        **interval("told", says, ".5f"),
        **interval("took", took, ".5f"),
        **interval("factor", times(says, took), ".3f"),
    }
