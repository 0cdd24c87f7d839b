"""Line charts of loss, accuracy, clipping, learning rate, gradient health and overhead over time."""

from collections.abc import Sequence
from typing import Final

from nissa.charts import Series, lines
from nissa.charts.line_chart import MOST_POINTS
from nissa.recordings import Stream
from nissa.report.panels import PageSection, Panel, Variant, series_table
from nissa.report.run_summary import RunSummary
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import MetricSpec

MOST_SERIES: Final = 48
"""Maximum number of lines in a figure; beyond it, those of the first environments and ranks are drawn."""

ALL_POINTS: Final = 48_000
"""Maximum number of points of all lines in a figure."""

TRAIN: Final = "train"
VALIDATION: Final = "validation"

_NONE: Final = {
    "loss": "No loss was logged: call run.log_loss(loss) before optimizer.step(), and run.validate(loss=...).",
    "accuracy": "No accuracy was logged: call run.validate(accuracy=...), and train_accuracy=... for that of training.",
    "health": "No gradients were measured: the profile reads none, or run.watch(model, optimizer) was not called.",
    "norm": "No gradients were measured: the profile reads none, or run.watch(model, optimizer) was not called.",
    "overhead": "The cost of telemetry was not measured: run.watch(model, optimizer) was not called, or no step happened.",
    "clip-norm": "No clipping was logged: clip with run.clip_grad_norm_(...), or call run.log_clip(norm, max_norm).",
    "clip-factor": "No clipping was logged: clip with run.clip_grad_norm_(...), or call run.log_clip(norm, max_norm).",
    "rate": "No learning rate was recorded: run.watch(model, optimizer) was not called, or no step happened.",
}


def learning(run: RunSummary) -> list[Panel]:
    """Return the panels with loss and accuracy."""
    reading = "Thin: every training step. Bold: validation."
    return [
        _panel(run, "loss", "Loss", metric.LOSS, log=True, smooth=True, reading=reading),
        _panel(run, "accuracy", "Accuracy", metric.ACCURACY, percent=True),
    ]


def optimizer(run: RunSummary) -> PageSection:
    """Return the section with clipping and learning rates."""
    before, factor = (
        "Of all gradients, before they were clipped.",
        "1: not clipped; 0.1: gradients were divided by ten.",
    )
    panels = [
        _panel(run, "clip-norm", "Clip norm", metric.CLIP_NORM, log=True, smooth=True, reading=before),
        _panel(run, "clip-factor", "Clip factor", metric.CLIP_FACTOR, log=True, smooth=True, reading=factor),
        _panel(run, "rate", "Learning rate", metric.LEARNING_RATE, log=True),
    ]
    return PageSection(key="optimizer", title="Optimizer", panels=panels)


def gradients_as_a_whole(run: RunSummary) -> list[Panel]:
    """Return the panels with model-wide gradient health and norm."""
    return [
        _panel(run, "health", "Gradient health", metric.GRADIENT_HEALTH, reading="1 is healthy, 0 is broken."),
        _panel(run, "norm", "Gradient norm", metric.GRADIENT_GLOBAL_NORM, log=True, reading="Over all parameters."),
    ]


def cost(run: RunSummary) -> PageSection:
    """Return the section with the cost of telemetry."""
    reading = "Share of wall time that telemetry took from training."
    panel = _panel(run, "overhead", "Cost of telemetry", metric.OVERHEAD_RATIO, percent=True, reading=reading)
    return PageSection(key="cost", title="Telemetry", panels=[panel])


def _panel(  # noqa: PLR0913 - properties of a panel, all named
    run: RunSummary,
    key: str,
    title: str,
    spec: MetricSpec,
    *,
    log: bool = False,
    percent: bool = False,
    smooth: bool = False,
    reading: str = "",
) -> Panel:
    series = phases(run, run.streams(spec))
    shown = series[:MOST_SERIES]
    if not shown:
        return Panel(key=key, title=title, empty=_NONE[key], wide=False)
    left_out = len(series) - len(shown)
    most = min(MOST_POINTS, ALL_POINTS // len(shown))
    missing = "" if key != "loss" or any(each.sparse for each in shown) else " No validation was logged."
    more = f" {left_out} more lines are left out." if left_out else ""
    return Panel(
        key=key,
        title=title,
        reading=(reading + missing + more).strip(),
        summary=summary(title, shown, percent=percent),
        variants=[Variant("", "", lines(shown, percent=percent, smooth=smooth, most=most))],
        table=series_table(title, series, percent=percent),
        log=log,
        wide=False,
    )


def phases(run: RunSummary, streams: Sequence[tuple[SeriesKey, Stream]]) -> list[Series]:
    """Convert streams to series: one colour per environment, model and rank, and markers on validation lines."""
    series_keys = list(dict.fromkeys(series_key for series_key, _ in streams))
    hues = _hues(series_keys)
    several = {str(stream.attributes.get(attr.PHASE, "")) for _, stream in streams} - {""}
    found = []
    for series_key, stream in streams:
        phase = str(stream.attributes.get(attr.PHASE, ""))
        group = stream.attributes.get(attr.PARAMETER_GROUP_INDEX)
        place = "" if group is None else f"group {group}"
        name = " · ".join(part for part in (run.names.name(series_key), place, phase) if part) or "value"
        hue = hues[series_key] + (
            len(set(hues.values())) if len(several) > 1 and phase == TRAIN and len(series_keys) == 1 else 0
        )
        found.append(run.series(series_key, stream, name, hue=hue, sparse=_sparse(stream, phase)))
    return sorted(found, key=lambda series: series.sparse)


def _hues(series_keys: Sequence[SeriesKey]) -> dict[SeriesKey, int]:
    """Return the colour index per place; the model only counts if several models were recorded."""
    several = len({series_key.model for series_key in series_keys if series_key.model}) > 1
    keys = [(series_key.env, series_key.model if several else "", series_key.rank) for series_key in series_keys]
    order = list(dict.fromkeys(keys))
    return {series_key: order.index(key) for series_key, key in zip(series_keys, keys, strict=True)}


def _sparse(stream: Stream, phase: str) -> bool:
    return phase == VALIDATION and len(stream.times) <= 400  # noqa: PLR2004 - more marks than that are a band


def summary(title: str, series: Sequence[Series], *, percent: bool) -> str:
    """Return a one-sentence summary of the lines: first and last value of each."""
    parts = []
    for each in series[:6]:
        finite = each.finite
        if len(finite):
            first, last = (f"{value:.1%}" if percent else f"{value:.4g}" for value in (finite[0], finite[-1]))
            parts.append(f"{each.name} {first} → {last}")
        else:
            parts.append(f"{each.name}: never finite")
    return f"{title} from first to last: {'; '.join(parts)}."
