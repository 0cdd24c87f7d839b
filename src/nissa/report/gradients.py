"""Gradient section: heatmap of norms by parameter and time, and distributions of the element magnitudes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from nissa.charts import Grid, Series, band_chart, gather, heatmap
from nissa.charts.distribution import Band
from nissa.charts.series import thin
from nissa.charts.text import ABSENT, number
from nissa.recordings import DistributionStream, Stream
from nissa.report.distributions import band_of, quantiles_of, total_of
from nissa.report.learning import gradients_as_a_whole
from nissa.report.panels import PageSection, Panel, Table, TableRow, Variant
from nissa.report.run_summary import RunSummary
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

T = TypeVar("T")

CELLS: Final = 280_000
"""Maximum number of cells of all heatmaps together; limits the size of the page."""

MOST_COLUMNS: Final = 480
MOST_ROWS: Final = 300

BAND_CELLS: Final = 180_000
"""Maximum number of cells of all distributions together; limits the size of the page."""

BAND_ROWS: Final = 48
MOST_BAND_COLUMNS: Final = 60
LEAST_BAND_COLUMNS: Final = 8
QUANTILE_POINTS: Final = 60_000
"""Maximum number of points of all quantile lines together; limits the size of the page."""

MOST_QUANTILE_POINTS: Final = 120
MOST_DISTRIBUTIONS: Final = 200
"""Maximum number of parameters with a distribution chart; beyond it, the first of each environment are drawn."""

ALL: Final = "all parameters"

NONE: Final = "No gradients were measured: the profile reads none (see nissa profiles), or run.watch(model, optimizer) was not called."


def gradients(run: RunSummary) -> PageSection:
    """Return the gradient section."""
    if not run.streams(metric.GRADIENT_NORM) and not run.recording.distributions_of(metric.GRADIENT_MAGNITUDE.name):
        return PageSection(key="gradients", title="Gradients", empty=NONE)
    return PageSection(
        key="gradients", title="Gradients", panels=[*gradients_as_a_whole(run), _heat(run), _distributions(run)]
    )


def _heat(run: RunSummary) -> Panel:
    found = _by_place(run.streams(metric.GRADIENT_NORM))
    title = "Gradient norm by parameter"
    if not found:
        return Panel(key="heatmap", title=title, empty="No norms of gradients were exported: see gradients.statistics.")
    left_out = sum(max(len(streams) - MOST_ROWS, 0) for streams in found.values())
    rows = sum(min(len(streams), MOST_ROWS) for streams in found.values())
    columns = max(min(MOST_COLUMNS, CELLS // rows), LEAST_BAND_COLUMNS)
    variants = [_heat_variant(run, series_key, streams, columns) for series_key, streams in found.items()]
    more = f" {left_out} more parameters are in the table only." if left_out else ""
    return Panel(
        key="heatmap",
        title=title,
        reading=f"Brighter is larger, on a logarithmic scale; a cell shows its largest norm, blank was not measured.{more}",
        summary=_heat_summary(found),
        variants=variants,
        table=_norm_table(run, found),
        choice="Gradients of",
    )


def _heat_variant(run: RunSummary, series_key: SeriesKey, streams: Sequence[Stream], columns: int) -> Variant:
    rows = [run.series(series_key, stream, _parameter(stream)) for stream in streams[:MOST_ROWS]]
    grid: Grid = gather(rows, most_columns=columns)
    name = run.names.name(series_key) or "the model"
    return Variant(
        name, run.names.group(series_key.env), heatmap(grid, title="L2 norm", group=run.names.group(series_key.env))
    )


def _heat_summary(found: Mapping[SeriesKey, Sequence[Stream]]) -> str:
    parameters = {_parameter(stream) for streams in found.values() for stream in streams}
    return f"L2 norms of the gradients of {len(parameters)} parameters over time; the table gives each one's range."


def _norm_table(run: RunSummary, found: Mapping[SeriesKey, Sequence[Stream]]) -> Table:
    rows = []
    for series_key, streams in found.items():
        for stream in streams:
            finite = stream.values[np.isfinite(stream.values)]
            figures = [finite[0], np.median(finite), finite[-1], finite.max()] if len(finite) else []
            cells = tuple(number(float(each)) for each in figures) or (ABSENT,) * 4
            name = (run.names.name(series_key) or ABSENT, _parameter(stream), f"{len(stream.values):,}")
            rows.append(TableRow((*name, *cells), run.names.group(series_key.env)))
    head = ("of", "parameter", "samples", "first", "median", "last", "largest")
    return Table("L2 norms of gradients by parameter", head, tuple(rows), numeric=5)


def _distributions(run: RunSummary) -> Panel:
    title = "Distribution of gradient magnitudes"
    bands = _by_place(
        (SeriesKey.of(each.attributes, each.process), each)
        for each in run.recording.distributions_of(metric.GRADIENT_MAGNITUDE.name)
    )
    quantiles = _quantiles(run)
    keys = list(dict.fromkeys([*_keys(bands), *quantiles]))
    if not keys:
        return Panel(key="distribution", title=title, empty="No distributions of gradients were exported.")
    shown = _first(keys, MOST_DISTRIBUTIONS)
    columns = min(MOST_BAND_COLUMNS, max(LEAST_BAND_COLUMNS, BAND_CELLS // (BAND_ROWS * (len(shown) + len(bands)))))
    points = min(MOST_QUANTILE_POINTS, QUANTILE_POINTS // max(1, sum(len(quantiles.get(key, ())) for key in shown)))
    by_key = {(series_key, _parameter(each)): each for series_key, streams in bands.items() for each in streams}
    variants = []
    for series_key in dict.fromkeys(series_key for series_key, _ in shown):
        if series_key in bands:
            variants.append(_total(run, series_key, total_of(bands[series_key], columns, BAND_ROWS)))
        for key in shown:
            if key[0] == series_key:
                stream = by_key.get(key)
                band = None if stream is None else band_of(stream, columns, BAND_ROWS)
                lines = [thin(_quantile(run, series_key, *each), points) for each in quantiles.get(key, ())]
                variants.append(_variant(run, series_key, key[1], band, lines))
    left_out = len(keys) - len(shown)
    more = f" {left_out} more parameters are left out." if left_out else ""
    return Panel(
        key="distribution",
        title=title,
        reading="Colour: how many of the sampled elements are that large, without exact zeros and the smallest 0.1%. "
        f"Lines: quantiles at sampled steps; of all parameters, from the colours.{more}",
        summary="How the absolute values of gradient elements are distributed over time, for one parameter at a time.",
        variants=variants,
        table=_zeros_table(run, bands),
        choice="Parameter",
    )


def _first(keys: Sequence[tuple[SeriesKey, str]], most: int) -> list[tuple[SeriesKey, str]]:
    """Return the first parameters of each environment, model and rank, with an equal number for each."""
    series_keys = dict.fromkeys(series_key for series_key, _ in keys)
    each = max(1, most // len(series_keys))
    return [key for series_key in series_keys for key in [key for key in keys if key[0] == series_key][:each]]


def _keys(bands: "Mapping[SeriesKey, Sequence[DistributionStream]]") -> list[tuple[SeriesKey, str]]:
    return [(series_key, _parameter(each)) for series_key, streams in bands.items() for each in streams]


def _variant(
    run: RunSummary, series_key: SeriesKey, parameter: str, band: Band | None, quantiles: Sequence[Series]
) -> Variant:
    if band is not None and run.clock.known:
        steps = run.clock.steps(series_key, band.edges)
        band = band if np.isnan(steps).any() else Band(band.edges, steps, band.bounds, band.shares)
    figure = band_chart(band, quantiles, title="magnitude", group=run.names.group(series_key.env))
    name = run.names.name(series_key)
    return Variant(f"{name} · {parameter}" if name else parameter, run.names.group(series_key.env), figure)


def _total(run: RunSummary, series_key: SeriesKey, band: Band | None) -> Variant:
    found = [] if band is None else quantiles_of(band)
    lines = [
        Series(
            f"{level:.4g} quantile",
            times,
            values,
            run.clock.steps(series_key, times) if run.clock.known else None,
            hue=1,
        )
        for level, times, values in found
    ]
    return _variant(run, series_key, ALL, band, lines)


def _quantiles(run: RunSummary) -> dict[tuple[SeriesKey, str], list[tuple[float, Stream]]]:
    found: dict[tuple[SeriesKey, str], list[tuple[float, Stream]]] = {}
    for series_key, stream in run.streams(metric.GRADIENT_QUANTILE):
        level = _level(stream.attributes.get(attr.QUANTILE))
        if level is None:
            continue
        found.setdefault((series_key, _parameter(stream)), []).append((level, stream))
    return {key: sorted(figures, key=lambda each: each[0]) for key, figures in found.items()}


def _level(attribute: object) -> float | None:
    """Return a quantile's level, 0 to 1; None if the attribute is something else."""
    try:
        level = float(str(attribute))
    except ValueError:
        return None
    return level if 0 <= level <= 1 else None


def _quantile(run: RunSummary, series_key: SeriesKey, level: float, stream: Stream) -> Series:
    return run.series(series_key, stream, f"{level:.4g} quantile", hue=1)


def _zeros_table(run: RunSummary, bands: "Mapping[SeriesKey, Sequence[DistributionStream]]") -> Table | None:
    rows = []
    for series_key, streams in bands.items():
        for stream in streams:
            counted, zeros = _counted(stream)
            share = f"{zeros / counted:.2%}" if counted else ABSENT
            cells = (run.names.name(series_key) or ABSENT, _parameter(stream), f"{counted:,}", share)
            rows.append(TableRow(cells, run.names.group(series_key.env)))
    if not rows:
        return None
    head = ("of", "parameter", "elements sampled", "exactly zero")
    return Table("Sampled gradient elements by parameter", head, tuple(rows), numeric=2)


def _counted(stream: DistributionStream) -> tuple[int, int]:
    """Return the number of sampled elements, and the number of zeros among them."""
    points = stream.points[-1:] if stream.cumulative else stream.points
    zeros = sum(point.zeros for point in points)
    return zeros + sum(int(point.counts.sum()) for point in points), zeros


def _parameter(stream: "Stream | DistributionStream") -> str:
    return str(stream.attributes.get(attr.PARAMETER_NAME, ""))


def _by_place(pairs: "Iterable[tuple[SeriesKey, T]]") -> "dict[SeriesKey, list[T]]":
    found: dict[SeriesKey, list[T]] = {}
    for series_key, each in pairs:
        found.setdefault(series_key, []).append(each)
    return dict(sorted(found.items()))
