"""Tables of ``docs/explanation/cost.md``, generated from the results of ``make bench``."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Final

from benchmarks.facts import RESULTS, read
from benchmarks.goals import (
    PROFILES,
    SHORT_STEPS,
    Judged,
    Line,
    Verdict,
    estimate,
    line,
    of_kernels,
    of_live,
    of_others,
    of_profiles,
    on_a_gpu,
    share,
)
from benchmarks.steps.statistics import Estimate

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]
Row = dict[str, str]

_REGION: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NOT_YET: Final = "Not measured yet: `make bench` has not been run.\n"
_NO_GPU: Final = "Not measured yet: no GPU was available for `make bench-gpu`.\n"
_GOALS: Final = (
    "quantity",
    "model",
    "measured (95 % interval)",
    "goal",
    "verdict",
    "if not shown: verdict by time in Nissa's code, and counts",
)
_READS: Final = {
    "minimal": "never",
    "standard": "in every 10th step",
    "diagnostic": "in every step",
    "research": "in every step, and copies the weights",
}
PLOTS: Final = {"cost-per-sample.svg": ("steps.csv",), "cost-growth.svg": ("growth.csv",)}
"""Plots, with the results that each is drawn from."""


def page(text: str, table: Table, results: Path = RESULTS) -> str:
    """Return a page with its generated regions updated."""

    def region(found: re.Match[str]) -> str:
        return f"{found[1]}\n{REGIONS[found[2]](table, results)}\n{found[3]}"

    return _REGION.sub(region, text)


def digest(names: Iterable[str], results: Path = RESULTS) -> str:
    """Return the checksum that identifies these results in a plot; empty if there are no results."""
    there = [results / name for name in names]
    if not all(path.exists() for path in there):
        return ""
    return hashlib.sha256(b"".join(path.read_bytes() for path in there)).hexdigest()[:16]


def stale_plots(images: Path, results: Path = RESULTS) -> list[Path]:
    """Return the plots that are outdated, because they were drawn from other results."""
    wanted = {images / name: digest(names, results) for name, names in PLOTS.items()}
    return [
        path
        for path, text in wanted.items()
        if text and not (path.exists() and text in path.read_text(encoding="utf-8"))
    ]


def _summary(table: Table, results: Path) -> str:
    """Return the answer to the page's question: a sentence about `standard`, and the overhead of each profile."""
    own = {(row["way"], row["model"]): estimate(row, "own").value for row in read(results / "within.csv")}
    models = list(dict.fromkeys(model for _, model in own))
    if not all((way, model) in own for way in _READS for model in models) or not models:
        return _NOT_YET
    most = max(own["standard", model] for model in models)
    short = {(row["way"], row["model"]): row for row in read(results / "short.csv")}
    brief = list(dict.fromkeys(model for _, model in short))
    lines = [
        [
            f"`{way}`",
            reads,
            *(percent(own[way, model]) for model in models),
            *(f"{number(float(short[way, model]['added']))} µs" if (way, model) in short else "" for model in brief),
        ]
        for way, reads in _READS.items()
    ]
    head = [f"`{model}`, {number(float(short['standard', model]['bare_us']))} µs a step" for model in brief]
    return (
        f"**`standard` adds about {most * 100:.1f} % to a step of 0.4 s.** By profile and model, with what it adds to short steps "
        f"in microseconds:\n\n{table(['profile', 'reads gradients', *models, *head], lines)}"
    )


def _where(_table: Table, results: Path) -> str:
    rows = read(results / "steps.csv")
    if not rows:
        return _NOT_YET
    first = rows[0]
    bare = ", ".join(f"{row['model']} {float(row['bare_ms']):.0f} ms" for row in rows if row["way"] == "bare")
    return f"{_measured(first)} A step without Nissa takes {bare}.\n"


def _measured(row: Row) -> str:
    load = row.get("load")
    quiet = (
        f"the load average of the five minutes before was {load}, including the benchmark"
        if load
        else "other processes used the machine at the same time"
    )
    return f"Measured on `{row['machine']}` with torch `{row['torch']}`, at commit `{row['commit']}` on {row['date']}; {quiet}."


def _goals(table: Table, results: Path) -> str:
    steps = read(results / "steps.csv")
    within = read(results / "within.csv")
    kernels = of_kernels(read(results / "kernels.csv"))
    judged = [*of_profiles(steps, within), *of_others(steps, within), *of_live(within, steps), *kernels]
    return table(_GOALS, [_judged(each) for each in judged]) if judged else _NOT_YET


def _gpu(table: Table, results: Path) -> str:
    """Return the goals and results on a GPU, or the goals alone before the first measurement."""
    there = results / "cuda"
    steps, within = read(there / "steps.csv"), read(there / "within.csv")
    kernels = of_kernels(read(results / "kernels.csv"), "cuda")
    judged = [*of_profiles(steps, within, "cuda"), *of_others(steps, within), *kernels]
    if not judged:
        lines = [[what, wanted, "**not measured**"] for what, wanted in on_a_gpu()]
        return f"{_NO_GPU}\n{table(['quantity', 'goal', 'verdict'], lines)}"
    measured = _measured(steps[0]) if steps else ""
    return f"{table(_GOALS, [_judged(each) for each in judged])}\n{measured}\n"


def _judged(goal: Judged) -> list[str]:
    shown = percent if goal.percent else number
    ends = [f"above {shown(goal.least)}"] if isfinite(goal.least) else []
    ends += [f"below {shown(goal.most)}"] if isfinite(goal.most) else []
    return [
        goal.what,
        goal.model,
        spread(goal.measured, shown),
        ", ".join(ends),
        f"**{_verdict(goal)}**",
        _within(goal),
    ]


def _within(goal: Judged) -> str:
    """Return the measurement inside Nissa and the counts; both accompany a verdict that wall time leaves open."""
    if goal.verdict is not Verdict.OPEN:
        return ""
    shown = percent if goal.percent else number
    within = goal.from_within
    by_code = (
        []
        if within is None
        else [f"{_verdict(within)} ({shown(within.measured.low)} to {shown(within.measured.high)})"]
    )
    return "; ".join([*by_code, *([goal.counts] if goal.counts else [])])


def _verdict(goal: Judged) -> str:
    if goal.verdict is Verdict.MET:
        return f"met, {number(1 / goal.factor)} times better" if goal.factor > 0 else "met"
    if goal.verdict is Verdict.MISSED:
        return f"missed by a factor of {number(goal.factor)}"
    return f"not shown: the interval ends a factor of {number(goal.factor)} beyond the goal"


def _steps(table: Table, results: Path) -> str:
    rows = read(results / "steps.csv")
    if not rows:
        return _NOT_YET
    head = [
        "method",
        "longer step",
        "in Nissa's code",
        "added per sampled step, ms",
        "host reads",
        "operations",
        "peak memory, MiB",
        "bytes",
        "pairs",
    ]
    own = {(row["model"], row["way"]): row for row in read(results / "within.csv")}
    sections = ""
    for model in dict.fromkeys(row["model"] for row in rows):
        lines = [_step(row, own.get((model, row["way"]))) for row in rows if row["model"] == model]
        sections += f"### {model}\n\n{table(head, lines)}\n"
    return f"{sections}![Time that a sampled step adds, by method](../images/cost-per-sample.svg)\n"


def _step(row: Row, own: Row | None) -> list[str]:
    sample = Estimate(float(row["sample_ms"]), float(row["sample_low"]), float(row["sample_high"]))
    return [
        f"{row['way']} {row['version']}".strip(),
        spread(estimate(row, "ratio"), percent),
        "" if own is None else spread(estimate(own, "own"), percent),
        spread(sample, number),
        f"{int(row['reads']):,}",
        f"{int(row['operations']):,}",
        f"{int(row['peak_mib']):,}" if row["peak_mib"] else "",
        f"{int(row['bytes']):,}" if row["bytes"] else "",
        row["pairs"],
    ]


def _short(table: Table, results: Path) -> str:
    """Return what short steps cost: microseconds of processor time, and as multiples of the document's hooks."""
    rows = read(results / "short.csv")
    if not rows:
        return _NOT_YET
    sections = ""
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        hooks = next(float(row["added"]) for row in of_model if row["way"] == "hooks of the document")
        lines = []
        for row in of_model:
            added, goal = estimate(row, "added"), SHORT_STEPS.get((model, row["way"]))
            bare = float(row["bare_us"])
            lines.append(
                [
                    row["way"],
                    spread(added, number),
                    spread(estimate(row, "training"), number),
                    number(added.value / bare),
                    number(added.value / hooks),
                    "" if goal is None else str(goal),
                ]
            )
        bare = sum(float(row["bare_us"]) for row in of_model) / len(of_model)
        head = [
            "method",
            "added, µs",
            "on the training thread, µs",
            "in bare steps",
            "in the document's hooks",
            "goal, µs",
        ]
        sections += f"### {model}: a bare step takes {number(bare)} µs\n\n{table(head, lines)}\n"
    return f"{sections}{_measured(rows[0])}\n"


def _growth(table: Table, results: Path) -> str:
    rows = read(results / "growth.csv")
    if not rows:
        return _NOT_YET
    head = ["tensors", "elements", "MiB of gradients", "training thread, ms", "Nissa's threads, ms", "GB/s"]
    plot = "![Cost of a sampled step by bytes and by tensors](../images/cost-growth.svg)\n"
    parts = [table(head, [_grown(row) for row in rows]), _law(rows), f"{_measured(rows[0])}\n", plot]
    return "\n".join(part for part in parts if part)


def _grown(row: Row) -> list[str]:
    thread = estimate(row, "thread_ms")
    size = int(row["bytes"])
    return [
        f"{int(row['tensors']):,}",
        f"{int(row['elements']):,}",
        f"{size / 2**20:,.0f}",
        spread(thread, number),
        number(float(row["background_ms"])),
        number(size / thread.value / 1e6),
    ]


def _law(rows: Sequence[Row]) -> str:
    by_size = [row for row in rows if row["sweep"] == "elements"]
    large = [row for row in by_size if int(row["elements"]) >= 10_000_000]  # noqa: PLR2004 - no cache holds them
    by_count = [row for row in rows if row["sweep"] == "tensors"]
    if min(len(large), len(by_count)) < 3:  # noqa: PLR2004 - a line goes through any two points
        return ""
    size, count = _fit(large, "bytes"), _fit(by_count, "tensors")
    return (
        f"Fitted on the training thread: {number(size.slope * 2**30)} ms per GiB of gradients from 10 M elements on "
        f"(R² {size.explained:.4f}, exponent {size.exponent:.3f}, where 1 is linear), and {number(count.slope * 1000)} µs "
        f"per tensor at 10 M elements (R² {count.explained:.4f}).\n"
    )


def _fit(rows: Sequence[Row], name: str) -> Line:
    return line([float(row[name]) for row in rows], [float(row["thread_ms"]) for row in rows])


def _live(table: Table, results: Path) -> str:
    rows = [row for row in read(results / "within.csv") if row["way"] in PROFILES["cpu"]]
    if not rows:
        return _NOT_YET
    head = ["profile", "model", "reported by the run", "timed by the benchmark", "ratio"]
    lines = [
        [
            f"`{row['way']}`",
            row["model"],
            spread(estimate(row, "told"), percent),
            spread(share(estimate(row, "own")), percent),
            spread(estimate(row, "factor"), number),
        ]
        for row in rows
    ]
    return f"{table(head, lines)}\n{_measured(rows[0])}\n"


def _startup(table: Table, results: Path) -> str:
    rows = read(results / "startup.csv")
    if not rows:
        return _NOT_YET
    lines = []
    for row in rows:
        value = Estimate(float(row["value"]), float(row["low"]), float(row["high"]))
        text = spread(value, number) if int(row["repetitions"]) > 1 else number(value.value)
        lines.append([row["what"], f"{text} {row['unit']}", row["about"]])
    return f"{table(['quantity', 'measured', 'conditions'], lines)}\n{_measured(rows[0])}\n"


def spread(value: Estimate, shown: Callable[[float], str]) -> str:
    """Return a value with its interval."""
    return f"{shown(value.value)} ({shown(value.low)} to {shown(value.high)})"


def percent(value: float) -> str:
    """Return a share in percent."""
    if not isfinite(value):
        return number(value)
    digits = 1 if abs(value) >= 0.1 else 2  # noqa: PLR2004 - two digits below ten percent
    return f"{value * 100:.{digits}f} %"


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if not isfinite(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 100:  # noqa: PLR2004 - as many digits as stand before the point
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return f"{value:.3f}" if "e" in text else text.rstrip(".")


REGIONS: Final[dict[str, Callable[[Table, Path], str]]] = {
    "summary": _summary,
    "where": _where,
    "goals": _goals,
    "steps": _steps,
    "short": _short,
    "growth": _growth,
    "live": _live,
    "startup": _startup,
    "gpu": _gpu,
}
"""Writers of the text between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""
