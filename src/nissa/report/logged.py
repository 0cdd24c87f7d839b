"""Sections with values that the training loop logged, throughput, and hyperparameters."""

from typing import Any, Final

import numpy as np

from nissa.charts import Series, lines
from nissa.charts.text import ABSENT, number
from nissa.recordings import Stream
from nissa.report.learning import MOST_SERIES, phases, summary
from nissa.report.panels import PageSection, Panel, Table, TableRow, Variant, series_table
from nissa.report.run_summary import RunSummary
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

MOST_NAMES: Final = 60
"""Maximum number of names with a figure; beyond it, the first ones are drawn and all are in the table."""

ALL_POINTS: Final = 60_000
"""Maximum number of points of all figures together; limits the size of the page."""


def logged(run: RunSummary) -> PageSection:
    """Return the section with the values of ``run.log()`` and the throughput of ``run.log_items()``."""
    if not run.streams(metric.SCALAR) and not run.streams(metric.ITEMS):
        why = "No values of your own were logged: call run.log(name=value), and run.log_items(samples=...)."
        return PageSection(key="logged", title="Logged values", empty=why)
    return PageSection(key="logged", title="Logged values", panels=[_scalars(run), _throughput(run)])


def run_config(run: RunSummary) -> PageSection:
    """Return the section with the hyperparameters of ``start(run_config=...)``."""
    found: dict[str, dict[str, None]] = {}
    prefix = f"{attr.RUN_CONFIG}."
    for record in run.recording.logs:
        for name, value in record.attributes.items():
            if name.startswith(prefix):
                found.setdefault(name.removeprefix(prefix), {})[_text(value)] = None
    if not found:
        why = "No hyperparameters were passed: call nissa.start(run_config={...})."
        return PageSection(key="config", title="Hyperparameters", empty=why)
    rows = tuple(TableRow((name, " / ".join(values))) for name, values in sorted(found.items()))
    table = Table("Hyperparameters; values that differ between processes are separated by /", ("name", "value"), rows)
    return PageSection(key="config", title="Hyperparameters", tables=[table])


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _by_name(run: RunSummary) -> dict[str, list[tuple[SeriesKey, Stream]]]:
    found: dict[str, list[tuple[SeriesKey, Stream]]] = {}
    for series_key, stream in run.streams(metric.SCALAR):
        found.setdefault(str(stream.attributes.get(attr.SCALAR_NAME, "")), []).append((series_key, stream))
    return dict(sorted(found.items()))


def _scalars(run: RunSummary) -> Panel:
    by_name, title = _by_name(run), "Values of run.log()"
    if not by_name:
        return Panel(key="scalars", title=title, empty="Nothing was passed to run.log().", wide=False)
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
        variants=[Variant(name, "", lines(series[name][:MOST_SERIES], most=most)) for name in shown],
        table=series_table(title, everything),
        choice="Name",
        log=True,
        wide=False,
    )


def _named(name: str, series: Series) -> Series:
    own = name if series.name == "value" else f"{name} · {series.name}"
    return Series(own, series.times, series.values, series.steps, group=series.group, hue=series.hue)


def _throughput(run: RunSummary) -> Panel:
    title, series, rows = "Throughput", [], []
    for hue, (series_key, stream) in enumerate(run.streams(metric.ITEMS)):
        kind = str(stream.attributes.get(attr.ITEM_KIND, ""))
        where = run.names.name(series_key)
        name = f"{kind} · {where}" if where else kind
        total, seconds = float(stream.values[-1]), (stream.times[-1] - run.begin) / 1e9
        mean = number(total / seconds) if seconds > 0 else ABSENT
        rows.append(TableRow((name, f"{total:,.0f}", mean), run.names.group(series_key.env)))
        if len(stream.times) > 1:
            series.append(run.series(series_key, _rates(stream), name, hue=hue))
    if not series:
        empty = "Nothing was passed to run.log_items(), or the run ended before the second export."
        return Panel(key="throughput", title=title, empty=empty, wide=False)
    return Panel(
        key="throughput",
        title=title,
        reading="Items per second between two exports.",
        summary=summary(title, series, percent=False),
        variants=[Variant("", "", lines(series[:MOST_SERIES]))],
        table=Table("Items", ("kind", "total", "mean per second since the start"), tuple(rows), numeric=2),
        log=True,
        wide=False,
    )


def _rates(stream: Stream) -> Stream:
    """Return the items per second between exports. The export at the end of a run may follow the one before at once."""
    times, values = stream.times, stream.values
    gaps = np.diff(times)
    if len(gaps) > 1 and gaps[-1] < np.median(gaps) / 2:
        times, values = np.delete(times, -2), np.delete(values, -2)
    rates = np.diff(values) / np.maximum(np.diff(times) / 1e9, 1e-9)
    return Stream(stream.metric, stream.attributes, stream.process, times[1:], rates)
