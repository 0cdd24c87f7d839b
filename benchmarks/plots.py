"""Draw the results: ``python -m benchmarks.plots`` writes ``docs/images/cost-*.svg``.

A plot carries a digest of the results that it was drawn from, so that ``make generate --check`` notices an old one. Its
background is transparent and its lines are grey, which is legible on light and on dark pages.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.facts import RESULTS, read
from benchmarks.goals import PROFILES, SAMPLED, estimate
from scripts.cost import PLOTS, digest

mpl.use("svg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

GREY, OURS, THEIRS = "#808080", "#2e8b8b", "#c8782a"
STYLE = {
    "svg.hashsalt": "nissa",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_LEAST = 0.01
_OWN = {*PROFILES["cpu"], SAMPLED}


def per_sample(results: Path) -> Any:
    """Draw the time that a sampled step adds, by method and model."""
    rows = [row for row in read(results / "steps.csv") if row["way"] != "bare"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(9, 3.6), sharex=True, sharey=True, squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        lines = [row for row in rows if row["model"] == model][::-1]
        values = [float(row["sample_ms"]) for row in lines]
        axis.barh(
            [row["way"] for row in lines],
            [max(value, _LEAST) for value in values],
            color=[OURS if row["way"] in _OWN else THEIRS for row in lines],
            alpha=0.6,
        )
        for place, row in enumerate(lines):
            low, high = float(row["sample_low"]), float(row["sample_high"])
            if high > _LEAST:
                axis.plot([max(low, _LEAST), high], [place, place], color=GREY, linewidth=1.5)
        axis.set_xscale("log")
        axis.set_xlim(left=_LEAST)
        axis.set_title(model, fontsize=9)
        axis.set_xlabel("added by a sampled step, ms")
    figure.tight_layout()
    return figure


def growth(results: Path) -> Any:
    """Draw the growth of the cost of a sampled step."""
    rows = read(results / "growth.csv")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axis, sweep, by, label in (
        (axes[0], "elements", "bytes", "bytes of gradients (150 tensors)"),
        (axes[1], "tensors", "tensors", "tensors (10 M elements)"),
    ):
        lines = [row for row in rows if row["sweep"] == sweep]
        x = [float(row[by]) for row in lines]
        found = [estimate(row, "thread_ms") for row in lines]
        ends = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
        axis.errorbar(x, [each.value for each in found], yerr=ends, color=OURS, marker="o", label="training thread")
        background = [float(row["background_ms"]) for row in lines]
        axis.plot(x, background, color=THEIRS, marker="s", linestyle="--", label="Nissa's own threads")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(label)
    axes[0].set_ylabel("a sampled step, ms")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    return figure


DRAWN = {"cost-per-sample.svg": per_sample, "cost-growth.svg": growth}


def main() -> None:
    """Draw the plots for which results exist."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--into", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        checksum = digest(PLOTS[name], arguments.results)
        if checksum:
            with mpl.rc_context(STYLE):
                figure = draw(arguments.results)
                metadata = {"Date": None, "Description": f"drawn from {checksum}"}
                figure.savefig(arguments.into / name, transparent=True, metadata=metadata)
            plt.close(figure)


if __name__ == "__main__":
    main()
