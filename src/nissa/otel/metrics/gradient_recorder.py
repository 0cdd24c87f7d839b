"""Recorder of gradient metrics: one stream per parameter, from its first sample until the network drops it."""

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.otel.metrics.store import MagnitudeStream, Sample
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nissa.config import GradientConfig
    from nissa.events import SpanIds
    from nissa.hub.measurements import GradientsMeasured
    from nissa.kernels.moments import Moments
    from nissa.otel.metrics.store import MetricStore
    from nissa.semconv.cardinality import CardinalityLimiter

_Model = tuple[str | None, str | None]
"""Environment and model name."""


class _Parameters:
    """Metric state of the parameters of one network, one row per parameter.

    Args:
        names: Parameter names.
        base: Attributes common to all rows.
        quantiles: Exported quantiles, 0 to 1.

    Attributes:
        rows: Attributes per parameter; built once, because rebuilding them at each sample would be slow.
        quantile_rows: Attributes per quantile and parameter, quantile by quantile.
        counted: Whether the row has a stream of non-finite elements already.
        magnitudes: Magnitude histogram per row, None before its first sample.
        counts: Bucket counts of all magnitude histograms, (rows, buckets + 2). The streams hold views of its rows, so
            that one addition updates all of them. None before the first histogram.
    """

    def __init__(self, names: tuple[str, ...], base: dict[str, Any], quantiles: "Sequence[float]") -> None:
        self.names = names
        self.rows = [base | {attr.PARAMETER_NAME: name} for name in names]
        self.quantile_rows = [row | {attr.QUANTILE: f"{q:.12g}"} for q in quantiles for row in self.rows]
        self.counted = np.zeros(len(names), dtype=np.bool_)
        self.magnitudes: list[MagnitudeStream | None] = [None] * len(names)
        self.counts: NDArray[np.int64] | None = None


class GradientRecorder:
    """Records gradient samples in the metric store.

    Args:
        store: Metric store of the run.
        config: Selects the exported statistics.
        slots: Limits the slots with streams of their own.
    """

    def __init__(self, store: "MetricStore", config: "GradientConfig", *, slots: "CardinalityLimiter") -> None:
        self._slots = slots
        self._store = store
        self._config = config
        self._known: dict[_Model, _Parameters] = {}
        # Time of the previous sample per network: start time of the streams that begin with the next one.
        self._last_sample: dict[_Model, int] = {}

    def take(self, sample: "GradientsMeasured", epoch: "SpanIds | None") -> None:
        """Record the gradients of one sampled step.

        Args:
            sample: Gradient statistics of the step.
            epoch: Span that exemplars refer to; None records no exemplars.
        """
        model, at = (sample.env_id, sample.model_name), sample.time_unix_nano
        start = self._last_sample.get(model, self._store.start)
        self._last_sample[model] = at
        env = {} if sample.env_id is None else {attr.ENV_ID: sample.env_id}
        base = env | ({attr.MODEL_NAME: sample.model_name} if sample.model_name else {})
        known = self._follow(model, base, sample)
        self._statistics(model, known, sample)
        self._store.gauge(metric.GRADIENT_GLOBAL_NORM, base, at, sample.health.global_norm)
        self._store.gauge(metric.GRADIENT_HEALTH, base, at, sample.health.score)
        self._store.gauge(metric.READBACK_LAG, base, at, sample.lag)
        for slot, ratio in sample.seed_ratios.items():
            if self._slots.own(slot) is None:
                continue
            self._store.gauge(metric.SEED_GRADIENT_RATIO, env | {attr.SEED_SLOT: slot}, at, ratio)
        self._count(known, sample, start)
        self._add_magnitudes(known, sample, start, epoch)

    def _follow(self, model: _Model, base: dict[str, Any], sample: "GradientsMeasured") -> _Parameters:
        """Return the state of the network's parameters; end the streams of parameters that no longer exist."""
        known = self._known.get(model)
        if known is not None and known.names == sample.names:
            return known
        before = () if known is None else known.names
        for gone in set(before) - set(sample.names):
            for spec in (metric.GRADIENT_MAGNITUDE, metric.GRADIENT_NONFINITE):
                self._store.end(spec, base | {attr.PARAMETER_NAME: gone}, sample.time_unix_nano)
        if known is not None:
            self._store.end_gauges((model, before))
        quantiles = self._config.quantiles if sample.moments.buckets is not None else ()
        self._known[model] = _Parameters(sample.names, base, quantiles)
        return self._known[model]

    def _statistics(self, model: _Model, known: _Parameters, sample: "GradientsMeasured") -> None:
        at, group = sample.time_unix_nano, (model, sample.names)
        for statistic in self._config.statistics:
            values = _shown(sample, getattr(sample.moments, statistic))
            self._store.gauge_row(metric.GRADIENT_STATISTICS[statistic], known.rows, at, values, group=group)
        if self._config.weight_norms and sample.weight_norms is not None:
            norms = sample.weight_norms  # a tuple, if all rows are shown, so that NaN is exported
            told = tuple(norms.tolist()) if sample.shown is None else _shown(sample, norms)
            self._store.gauge_row(metric.WEIGHT_NORM, known.rows, at, told, group=group)
        if self._config.update_ratios and sample.update_ratios is not None:
            ratios = _shown(sample, sample.update_ratios)
            self._store.gauge_row(metric.UPDATE_RATIO, known.rows, at, ratios, group=group)
        if known.quantile_rows:
            found = sample.moments.quantile(self._config.quantiles)
            values = np.concatenate([_shown(sample, each) for each in found])
            self._store.gauge_row(metric.GRADIENT_QUANTILE, known.quantile_rows, at, values, group=group)

    def _count(self, known: _Parameters, sample: "GradientsMeasured", start: int) -> None:
        """Count non-finite elements; the stream of a row starts with the first sample that shows it, even at zero."""
        nonfinite = sample.moments.nonfinite
        shown = np.zeros(len(known.names), dtype=np.bool_)
        shown[slice(None) if sample.shown is None else sample.shown] = True
        for index in np.flatnonzero(shown & ((nonfinite > 0) | ~known.counted)).tolist():
            self._store.add(metric.GRADIENT_NONFINITE, known.rows[index], int(nonfinite[index]), start=start)
        known.counted |= shown

    def _add_magnitudes(
        self, known: _Parameters, sample: "GradientsMeasured", start: int, epoch: "SpanIds | None"
    ) -> None:
        moments, at = sample.moments, sample.time_unix_nano
        if moments.buckets is None:
            return
        counts = np.column_stack((moments.underflow, moments.buckets, moments.overflow))
        zeros, totals, largest = moments.zeros.tolist(), moments.abs_total.tolist(), moments.abs_max.tolist()
        with self._store.sections, self._store.lock:
            for index in _indices(sample):
                stream = known.magnitudes[index] or self._begin(known, index, moments, start)
                stream.zeros += zeros[index]
                stream.total += totals[index]
                most = largest[index]
                if isfinite(most):
                    stream.maximum = most if stream.maximum is None else max(stream.maximum, most)
                    if epoch is not None:
                        stream.sample = Sample(most, at, epoch)
            if known.counts is not None:
                shown = slice(None) if sample.shown is None else sample.shown
                known.counts[shown] += counts[shown]

    def _begin(self, known: _Parameters, index: int, moments: "Moments", start: int) -> MagnitudeStream:
        """Return the magnitude stream of a row and move its counts into the shared array.

        The stream may exist already, if the list of parameters changed and this one stayed.
        """
        span = moments.bucket_range
        assert span is not None  # noqa: S101 - there are buckets
        if known.counts is None:
            known.counts = np.zeros((len(known.names), span.size + 2), dtype=np.int64)
        mine = known.counts[index]
        stream = self._store.magnitude(
            metric.GRADIENT_MAGNITUDE,
            known.rows[index],
            lambda: MagnitudeStream(known.rows[index], start, span, mine),
        )
        mine[:] = stream.counts
        stream.counts = mine
        known.magnitudes[index] = stream
        return stream


def _indices(sample: "GradientsMeasured") -> "Iterable[int]":
    return range(len(sample.names)) if sample.shown is None else map(int, sample.shown)


def _shown(sample: "GradientsMeasured", values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the values with NaN (absent) in the rows that this sample does not export."""
    if sample.shown is None:
        return values
    kept = np.full(values.shape, np.nan)
    kept[sample.shown] = values[sample.shown]
    return kept
