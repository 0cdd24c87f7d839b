"""Compute the lines of the results from pairs of blocks; pure arithmetic."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.steps.statistics import Estimate, extra

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
    *(f"{name}{end}" for name in ("ratio", "busy") for end in ("", "_low", "_high")),
    "sample_ms",
    "sample_low",
    "sample_high",
    "reads",
    "operations",
    "peak_mib",
    "bytes",
)


def interval(name: str, estimate: Estimate, form: str) -> dict[str, str]:
    """Return an estimate as three columns."""
    return {
        name: format(estimate.value, form),
        f"{name}_low": format(estimate.low, form),
        f"{name}_high": format(estimate.high, form),
    }


def timing(pairs: Pairs, every: int) -> dict[str, Any]:
    """Return the timing columns of a way.

    Args:
        pairs: Pairs of blocks, at least one.
        every: Steps from one sample to the next.
    """
    bare = [pair["bare"] for pair in pairs]
    per_step = sum(bare) / sum(pair["steps"] for pair in pairs)
    ratio = extra([pair["watched"] for pair in pairs], bare, _turns(pairs))
    busy = extra([pair["watched_busy"] for pair in pairs], [pair["bare_busy"] for pair in pairs], _turns(pairs))
    sample = ratio.scaled(per_step * every * 1000)
    return {
        "pairs": len(pairs),
        "bare_ms": f"{per_step * 1000:.1f}",
        **interval("ratio", ratio, ".5f"),
        **interval("busy", busy, ".5f"),
        "sample_ms": f"{sample.value:.3f}",
        "sample_low": f"{sample.low:.3f}",
        "sample_high": f"{sample.high:.3f}",
    }


def _turns(pairs: Pairs) -> list[float]:
    return [pair["turn"] for pair in pairs]


def counted(watched: Mapping[str, float], bare: Mapping[str, float]) -> dict[str, int]:
    """Return the reads and operations that a way adds per sampling interval."""
    return {name: round(watched[name] - bare[name]) for name in ("reads", "operations")}
