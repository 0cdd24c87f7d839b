"""Newest gradient statistics per layer, as plain numbers for a snapshot."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.hub.measurements import GradientsMeasured


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGradients:
    """Gradient statistics of one layer. All but ``nonfinite`` cover its finite elements, and are None without any.

    Args:
        name: Name of the parameter, or of the block that parameters were folded into.
        model_name: Name of the watch, None with a single watch.
        norm: L2 norm.
        std: Unbiased standard deviation; None below two elements.
        zero_fraction: Share of exact zeros.
        vanishing_fraction: Share below the vanishing threshold.
        exploding_fraction: Share above the exploding threshold.
        nonfinite: Number of elements that are NaN or infinite.
        percentiles: Percentiles of the absolute values, those of the configuration.
        weight_norm: L2 norm of the weights before the step, None if not measured; NaN if weights are NaN.
        update_ratio: L2 norm of the step's change over ``weight_norm``, None if not measured.
    """

    name: str
    model_name: str | None = None
    norm: float | None = None
    mean: float | None = None
    std: float | None = None
    abs_max: float | None = None
    zero_fraction: float | None = None
    vanishing_fraction: float | None = None
    exploding_fraction: float | None = None
    nonfinite: int = 0
    percentiles: dict[float, float] = field(default_factory=dict)
    weight_norm: float | None = None
    update_ratio: float | None = None

    @property
    def label(self) -> str:
        """Layer name, prefixed with the model name if the run watches several."""
        return self.name if self.model_name is None else f"{self.model_name}:{self.name}"


_STATISTICS = ("norm", "mean", "std", "abs_max", "zero_fraction", "vanishing_fraction", "exploding_fraction")


def layers_of(samples: "Iterable[GradientsMeasured]", quantiles: Mapping[float, float]) -> tuple[LayerGradients, ...]:
    """Return the layers of samples, in the order of these.

    Args:
        samples: Newest sample of each watch.
        quantiles: Quantile to compute for each percentile.
    """
    return tuple(layer for sample in samples for layer in _layers(sample, quantiles))


def medians(layers: Iterable[LayerGradients]) -> dict[float, float]:
    """Return each percentile as the median over the layers that have it."""
    found: dict[float, list[float]] = {}
    for layer in layers:
        for percentile, value in layer.percentiles.items():
            if math.isfinite(value):
                found.setdefault(percentile, []).append(value)
    return {percentile: median(values) for percentile, values in found.items()}


def _layers(sample: "GradientsMeasured", quantiles: Mapping[float, float]) -> Iterator[LayerGradients]:
    moments = sample.moments
    # Convert whole columns: a `tolist` per statistic is much faster than reading single array elements.
    columns = {name: getattr(moments, name).tolist() for name in _STATISTICS}
    read = dict(zip(quantiles, moments.quantile([*quantiles.values()]).tolist(), strict=True))
    weights = None if sample.weight_norms is None else sample.weight_norms.tolist()
    updates = None if sample.update_ratios is None else sample.update_ratios.tolist()
    for row, name in enumerate(sample.names):
        percentiles = {percentile: values[row] for percentile, values in read.items()}
        yield LayerGradients(
            name=name,
            model_name=sample.model_name,
            nonfinite=int(moments.nonfinite[row]),
            percentiles={each: value for each, value in percentiles.items() if not math.isnan(value)},
            weight_norm=None if weights is None else weights[row],
            update_ratio=None if updates is None else _known(updates[row]),
            **{name: _known(column[row]) for name, column in columns.items()},
        )


def _known(value: float) -> float | None:
    """Return None for NaN, which here means absent, since these statistics cover finite elements only."""
    return None if math.isnan(value) else value
