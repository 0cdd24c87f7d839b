"""Panels about steps: where their time goes, and values of ``backward()`` without a known scale."""

from typing import Final

import numpy as np

from nissa.charts import Series, lines
from nissa.charts.text import ABSENT, number
from nissa.recordings import Stream, SumStream
from nissa.report.learning import MOST_SERIES, phases, summary
from nissa.report.panels import Panel, Table, TableRow, Variant, percentage, series_table
from nissa.report.run_summary import RunSummary
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

_ORDER: Final = ("data", "forward", "backward", "optimizer")
_MILLISECONDS: Final = 1_000.0


def step_phases(run: RunSummary) -> Panel:
    """Return the panel with the mean time of each phase of a step, between two exports."""
    title = "Step phases"
    found = sorted(run.recording.sums_of(metric.STEP_PHASE_DURATION.name), key=_place)
    if not found:
        empty = "No phase of a step was observed: step_phases is off, or no step was taken."
        return Panel(key="phases", title=title, empty=empty, wide=False)
    series = [_means(run, stream, hue) for hue, stream in enumerate(found)]
    return Panel(
        key="phases",
        title=title,
        reading="Mean host time of a step in milliseconds, between two exports. Much of it on data is a loader that is too slow.",
        summary=summary(f"{title} in milliseconds", series, percent=False),
        variants=[Variant("", "", lines(series[:MOST_SERIES], unit="ms"))],
        table=_table(run, found),
        log=True,
        wide=False,
    )


def backward_values(run: RunSummary) -> list[Panel]:
    """Return the panel with the values of ``backward()``; none where the loss of each step is known."""
    title = "Value of backward()"
    series = phases(run, run.streams(metric.BACKWARD_VALUE))
    if not series:
        return []
    return [
        Panel(
            key="backward",
            title=title,
            reading="Sum of a step, of an unknown scale: divided for accumulation, or weighted. run.log_loss makes it a loss.",
            summary=summary(title, series, percent=False),
            variants=[Variant("", "", lines(series[:MOST_SERIES], smooth=True))],
            table=series_table(title, series),
            log=True,
            wide=False,
        )
    ]


def _phase(stream: SumStream) -> str:
    return str(stream.attributes.get(attr.STEP_PHASE, ""))


def _place(stream: SumStream) -> tuple[SeriesKey, int, str]:
    phase = _phase(stream)
    return _key(stream), _ORDER.index(phase) if phase in _ORDER else len(_ORDER), phase


def _key(stream: SumStream) -> SeriesKey:
    return SeriesKey.of(stream.attributes, stream.process)


def _name(run: RunSummary, stream: SumStream) -> str:
    return " · ".join(part for part in (run.names.name(_key(stream)), _phase(stream)) if part)


def _means(run: RunSummary, stream: SumStream, hue: int) -> Series:
    measured = stream.counts > 0
    means = stream.sums[measured] / stream.counts[measured] * _MILLISECONDS
    shown = Stream(stream.metric, stream.attributes, stream.process, stream.times[measured], means)
    return run.series(_key(stream), shown, _name(run, stream), hue=hue)


def _table(run: RunSummary, streams: list[SumStream]) -> Table:
    """Return the mean of each phase over the whole run, and its share of all phases."""
    totals = {_key(stream): 0.0 for stream in streams}
    means = []
    for stream in streams:
        count = int(np.sum(stream.counts))
        mean = float(np.sum(stream.sums)) / count if count > 0 else 0.0
        means.append(mean)
        totals[_key(stream)] += mean
    rows = tuple(
        TableRow(
            (
                _name(run, stream),
                number(mean * _MILLISECONDS),
                percentage(mean / totals[_key(stream)]) if totals[_key(stream)] > 0 else ABSENT,
            ),
            run.names.group(_key(stream).env),
        )
        for stream, mean in zip(streams, means, strict=True)
    )
    return Table("Step phases of the whole run", ("phase", "mean, ms", "share of the phases"), rows, numeric=2)
