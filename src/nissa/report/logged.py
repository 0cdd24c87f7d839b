"""Panels with values that the training loop logged, and throughput."""

from typing import Final

import numpy as np

from nissa.charts import Series, lines
from nissa.charts.text import ABSENT, number
from nissa.recordings import Stream
from nissa.report.learning import MOST_SERIES, phases, summary
from nissa.report.panels import Panel, Table, TableRow, Variant, series_table
from nissa.report.run_summary import RunSummary
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

MOST_NAMES: Final = 60
"""Maximum number of names with a figure; beyond it, the first ones are drawn and all are in the table."""

ALL_POINTS: Final = 60_000
"""Maximum number of points of all figures together; limits the size of the page."""


STEPS: Final = "steps"
WINDOWS: Final = 120
"""Maximum number of points of a line of steps per second."""


def _by_name(run: RunSummary) -> dict[str, list[tuple[SeriesKey, Stream]]]:
    found: dict[str, list[tuple[SeriesKey, Stream]]] = {}
    for series_key, stream in run.streams(metric.SCALAR):
        found.setdefault(str(stream.attributes.get(attr.SCALAR_NAME, "")), []).append((series_key, stream))
    return dict(sorted(found.items()))


def scalars(run: RunSummary) -> Panel:
    """Return the panel with the values of ``run.log()``, one name at a time."""
    by_name, title = _by_name(run), "Values of run.log()"
    if not by_name:
        return Panel(
            key="scalars", title=title, empty="No values of your own were logged: call run.log(name=value).", wide=False
        )
    shown = list(by_name)[:MOST_NAMES]
    most = max(50, ALL_POINTS // sum(min(len(by_name[name]), MOST_SERIES) for name in shown))
    series = {name: phases(run, streams) for name, streams in by_name.items()}
    left_out = len(by_name) - len(shown)
    more = f" {left_out} more names are in the table only." if left_out else ""
    everything = [_named(name, each) for name in by_name for each in series[name]]
    return Panel(
        key="scalars",
        title=title,
        reading=f"Mean of the values logged before each step.{more}",
        summary=summary(title, everything, percent=False),
        variants=[Variant(name, "", lines(series[name][:MOST_SERIES], smooth=True, most=most)) for name in shown],
        table=series_table(title, everything),
        choice="Name",
        log=True,
        wide=False,
    )


def _named(name: str, series: Series) -> Series:
    own = name if series.name == "value" else f"{name} · {series.name}"
    return Series(own, series.times, series.values, series.steps, group=series.group, hue=series.hue)


def throughput(run: RunSummary) -> Panel:
    """Return the panel with steps, and items of ``run.log_items()``, per second."""
    title = "Throughput"
    kinds = {STEPS: _steps(run)} | _items(run)
    kinds = {kind: series for kind, series in kinds.items() if series}
    if not kinds:
        empty = "No step was recorded: call run.watch(model, optimizer), and run.log_items(samples=...) for items."
        return Panel(key="throughput", title=title, empty=empty, wide=False)
    variants = [
        Variant(kind, "", lines(series[:MOST_SERIES], unit=f"{kind} per second")) for kind, series in kinds.items()
    ]
    hint = "" if len(kinds) > 1 else " run.log_items(samples=...) adds items."
    return Panel(
        key="throughput",
        title=title,
        reading=f"Steps per second of wall time, pauses between epochs included; items between two exports.{hint}",
        summary="; ".join(summary(f"{kind} per second", series, percent=False) for kind, series in kinds.items()),
        variants=variants,
        table=_totals(run),
        choice="Of",
        log=True,
        wide=False,
    )


def _items(run: RunSummary) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for hue, (series_key, stream) in enumerate(run.streams(metric.ITEMS)):
        if len(stream.times) > 1:
            name = run.names.name(series_key) or _kind(stream)
            found.setdefault(_kind(stream), []).append(run.series(series_key, _rates(stream), name, hue=hue))
    return found


def _steps(run: RunSummary) -> list[Series]:
    found = []
    for hue, (series_key, stream) in enumerate(run.streams(metric.STEP)):
        rates = _step_rates(stream)
        if len(rates.values):
            found.append(run.series(series_key, rates, run.names.name(series_key) or STEPS, hue=hue))
    return found


def _step_rates(stream: Stream) -> Stream:
    """Return the steps per second of at most ``WINDOWS`` windows of equal duration; those without a step are joined."""
    times, values = stream.times, stream.values
    known = np.isfinite(values)
    times, values = times[known], values[known]
    if len(times) < 2:  # noqa: PLR2004 - a rate needs two points
        return Stream(stream.metric, stream.attributes, stream.process, times[:0], values[:0])
    bounds = np.linspace(float(times[0]), float(times[-1]), min(WINDOWS, max(len(times) // 4, 1)) + 1)
    ends = np.unique(np.searchsorted(times, bounds[1:].astype(np.int64), side="right") - 1)
    ends = np.unique(np.concatenate(([0], ends, [len(times) - 1])))
    rates = np.diff(values[ends]) / np.maximum(np.diff(times[ends]) / 1e9, 1e-9)
    # A resumed run counts on from its checkpoint, so that steps may be repeated.
    forward = rates >= 0
    return Stream(stream.metric, stream.attributes, stream.process, times[ends][1:][forward], rates[forward])


def _kind(stream: Stream) -> str:
    return str(stream.attributes.get(attr.ITEM_KIND, ""))


def _totals(run: RunSummary) -> Table | None:
    rows = []
    for series_key, stream in run.streams(metric.ITEMS):
        where = run.names.name(series_key)
        name = f"{_kind(stream)} · {where}" if where else _kind(stream)
        total, seconds = float(stream.values[-1]), (stream.times[-1] - run.begin) / 1e9
        mean = number(total / seconds) if seconds > 0 else ABSENT
        rows.append(TableRow((name, f"{total:,.0f}", mean), run.names.group(series_key.env)))
    if not rows:
        return None
    return Table("Items", ("kind", "total", "mean per second since the start"), tuple(rows), numeric=2)


def _rates(stream: Stream) -> Stream:
    """Return the items per second between exports. The export at the end of a run may follow the one before at once."""
    times, values = stream.times, stream.values
    gaps = np.diff(times)
    if len(gaps) > 1 and gaps[-1] < np.median(gaps) / 2:
        times, values = np.delete(times, -2), np.delete(values, -2)
    rates = np.diff(values) / np.maximum(np.diff(times) / 1e9, 1e-9)
    return Stream(stream.metric, stream.attributes, stream.process, times[1:], rates)
