"""Goals for the overhead, and verdicts on the measurements; pure arithmetic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Final

import numpy as np

from benchmarks.steps.statistics import Estimate, times

Row = Mapping[str, str]

PROFILES: Final = {
    "cpu": {"minimal": 0.002, "standard": 0.002, "diagnostic": 0.02, "research": 0.15},
    "cuda": {"minimal": 0.001, "standard": 0.01, "diagnostic": 0.03, "research": 0.10},
}
"""Ratios to the bare step of 300 ms or more, by device."""

SHORT_STEPS: Final = {
    ("mlp", "minimal"): 12,
    ("mlp", "standard"): 30,
    ("mlp", "diagnostic"): 160,
    ("deep", "standard"): 70,
    ("deep", "diagnostic"): 600,
}
"""Microseconds of processor time that a profile may add to a step, on a machine where a bare step of `mlp` takes 125."""

CHEAPER: Final = {"hooks of the document": 20.0, "wandb.watch": 10.0}
"""Required factor by which a sampled step is cheaper, by way."""

SAMPLED: Final = "standard, every step"
"""Way whose sampled steps are compared."""

COPIES: Final = 2.5
"""Maximum time of all statistics and buckets of float32 on a CPU, relative to a copy."""

BANDWIDTH: Final = {"buckets": 0.60, "moments": 0.85}
"""Required share of a copy's bandwidth on a GPU, with buckets and without."""

AGREEMENT: Final = 1.5
"""Factor within which a run's own ratio agrees with the benchmark."""


class Verdict(StrEnum):
    """Verdict of an interval on a goal."""

    MET = "met"
    MISSED = "missed"
    OPEN = "not shown"


@dataclass(frozen=True, slots=True)
class Judged:
    """Goal with its measurement.

    Args:
        what: Description of the goal.
        model: Model that was trained.
        measured: Measured value with its interval.
        least: Lower limit of the goal.
        most: Upper limit of the goal.
        percent: Whether the numbers are shares.
        within: The same value measured inside Nissa, without effects on caches and memory bandwidth. It accompanies a
            verdict that wall time leaves open, but does not replace it. None if not measured.
        counts: Counted operations, in words, for effects too small for wall time.
    """

    what: str
    model: str
    measured: Estimate
    least: float = -inf
    most: float = inf
    percent: bool = False
    within: Estimate | None = None
    counts: str = ""

    @property
    def verdict(self) -> Verdict:
        """Verdict: met if the whole interval meets the goal, missed if no part of it does, else not shown."""
        low, high = self.measured.low, self.measured.high
        if self.least < low and (high < self.most or self.most == inf):
            return Verdict.MET
        return Verdict.MISSED if high <= self.least or low >= self.most else Verdict.OPEN

    @property
    def from_within(self) -> "Judged | None":
        """Goal judged by the measurement inside Nissa; None if wall time decides, or without such a measurement."""
        if self.within is None or self.verdict is not Verdict.OPEN:
            return None
        return replace(self, measured=self.within, within=None)

    @property
    def factor(self) -> float:
        """Ratio of the deciding end of the interval to the goal: above 1 beyond it, below 1 within it.

        If a goal is missed, the measured value is compared instead.
        """
        value = self.measured
        above = (value.value if self.verdict is Verdict.MISSED else value.high) / self.most if self.most < inf else 0.0
        end = value.value if self.verdict is Verdict.MISSED else value.low
        below = 0.0 if self.least == -inf else self.least / end if end > 0 else inf
        return max(above, below)


def of_profiles(rows: Sequence[Row], within: Sequence[Row] = (), device: str = "cpu") -> Iterator[Judged]:
    """Yield the goals of profiles.

    Args:
        rows: The lines of ``steps.csv``.
        within: The lines of ``within.csv``.
        device: Device of the goals.
    """
    own = _by_way(within)
    for row in rows:
        most = PROFILES[device].get(row["way"])
        if most is not None:
            ours = own.get(_key(row))
            own_estimate = None if ours is None else estimate(ours, "own")
            measured, what = estimate(row, "ratio"), f"`{row['way']}`"
            yield Judged(
                what, row["model"], measured, most=most, percent=True, within=own_estimate, counts=_counts(row)
            )


def of_others(rows: Sequence[Row], within: Sequence[Row] = ()) -> Iterator[Judged]:
    """Yield the factors by which a sampled step is cheaper than with alternative tools."""
    found, own = _by_way(rows), _by_way(within)
    for (model, way), other in found.items():
        ours = found.get((model, SAMPLED))
        if way in CHEAPER and ours is not None:
            counts = f"{_counts(ours)}; theirs {_counts(other)}"
            there = own.get((model, SAMPLED))
            own_estimate = None if there is None else times(_sample(other), _own_sample(there, ours))
            factor, what = times(_sample(other), _sample(ours)), f"sampled step: time of {way} / time of Nissa"
            yield Judged(what, model, factor, least=CHEAPER[way], within=own_estimate, counts=counts)


def of_kernels(rows: Sequence[Row], device: str = "cpu") -> Iterator[Judged]:
    """Yield the goals of the compiled kernel, for one long gradient of float32.

    Args:
        rows: The lines of ``kernels.csv``.
        device: Device of the goals.
    """
    for row in rows:
        if (row["device"], row["kernel"], row["dtype"], row["tensors"]) != (device, "compiled", "float32", "1"):
            continue
        ratio, size = estimate(row, "ratio"), f"{int(row['elements']) / 1e6:.1f} M float32"
        if device == "cuda":
            # A copy reads and writes. A kernel that only reads and takes the same time has half its bandwidth.
            share_ = Estimate(0.5 / ratio.value, 0.5 / ratio.high, 0.5 / ratio.low)
            yield Judged(_bandwidth(row["statistics"]), size, share_, least=BANDWIDTH[row["statistics"]], percent=True)
        elif row["statistics"] == "buckets":
            threads = "one thread" if row["threads"] == "1" else f"{row['threads']} threads"
            yield Judged(f"kernel with buckets: time / time of a copy, {threads}", size, ratio, most=COPIES)


def _bandwidth(statistics: str) -> str:
    return f"kernel {'with' if statistics == 'buckets' else 'without'} buckets: bandwidth / bandwidth of a copy"


def on_a_gpu() -> Iterator[tuple[str, str]]:
    """Yield the goals on a GPU, in words, with their limits."""
    for way, most in PROFILES["cuda"].items():
        yield f"`{way}`", f"below {most:.2%}".replace("%", " %")
    for statistics, least in BANDWIDTH.items():
        yield _bandwidth(statistics), f"above {least:.0%}".replace("%", " %")


def of_live(within: Sequence[Row], rows: Sequence[Row]) -> Iterator[Judged]:
    """Yield the agreement of a run's exported overhead ratio with wall time, and with a clock around Nissa's code."""
    by_time = _by_way(rows)
    for ours in within:
        row = by_time.get(_key(ours))
        if ours["way"] in PROFILES["cpu"] and row is not None:
            what = f"`nissa.overhead.ratio` in `{ours['way']}` / longer step"
            measured = times(estimate(ours, "told"), share(estimate(row, "ratio")))
            own_estimate = estimate(ours, "factor")
            yield Judged(what, ours["model"], measured, least=1 / AGREEMENT, most=AGREEMENT, within=own_estimate)


def _by_way(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    return {_key(row): row for row in rows}


def _key(row: Row) -> tuple[str, str]:
    return row["model"], row["way"]


def estimate(row: Row, name: str) -> Estimate:
    """Read an estimate from its three columns."""
    return Estimate(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]))


def _sample(row: Row) -> Estimate:
    return Estimate(float(row["sample_ms"]), float(row["sample_low"]), float(row["sample_high"]))


def _own_sample(within: Row, row: Row) -> Estimate:
    """Return milliseconds in Nissa's own code per step if every step is sampled."""
    return estimate(within, "own").scaled(float(row["bare_ms"]))


def share(added: Estimate) -> Estimate:
    """Convert a share of bare time to a share of watched time, to first order, because its interval is narrow."""
    value, half = added.value / (1 + added.value), added.half / (1 + added.value) ** 2
    return Estimate(value, value - half, value + half)


def _counts(row: Row) -> str:
    return f"{int(row['reads']):,} reads, {int(row['operations']):,} operations" if row.get("reads") else ""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through points, and the slope of their logarithms.

    Args:
        fixed: Intercept.
        slope: Slope.
        explained: R², the share of explained variance.
        exponent: Exponent of a power law through the same points; 1 if the cost is proportional.
    """

    fixed: float
    slope: float
    explained: float
    exponent: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Return the least-squares line through three or more positive points."""
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    slope, fixed = np.polyfit(across, up, 1)
    left = float(((up - fixed - slope * across) ** 2).sum())
    exponent = float(np.polyfit(np.log(across), np.log(up), 1)[0])
    return Line(float(fixed), float(slope), 1 - left / float(((up - up.mean()) ** 2).sum()), exponent)
