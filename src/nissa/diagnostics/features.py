"""Bounded feature vectors for a policy: of an environment (`signals_to_features`) and of a seed."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING, Final, Protocol

from nissa.config.feature_layout import FLAGS, LOOKED_BACK, SEED_FEATURES, percentile_feature
from nissa.config.feature_scaling import FeatureSpec

if TYPE_CHECKING:
    from nissa.config import TelemetryConfig
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.events import SeedSnapshot
    from nissa.hub.measurements import GradientHealth

Values = dict[str, float | None]

_STAGES: Final = 10


class Signals(Protocol):
    """Input of `signals_to_features`, implemented by `DiagnosticTracker`."""

    @property
    def config(self) -> "TelemetryConfig":
        """Configuration of the vector."""
        ...

    @property
    def history(self) -> "Sequence[EpochSnapshot]":
        """Snapshots, oldest first."""
        ...


def signals_to_features(tracker: Signals) -> tuple[float, ...]:
    """Return the feature vector of a tracker: ``config.feature_count`` numbers, each in its specified range.

    ``config.feature_specs`` has the name, range and meaning of each. Before the first validation all are missing.
    """
    history = list(tracker.history)
    values: Values = {}
    if history:
        newest = history[-1]
        values = {**_progress(newest), **_changes(history), **_flags(newest), **_gradients(newest), **_weights(newest)}
        values |= {**_classes(newest), **_sharpness(newest)}
    return _vector(tracker.config.feature_specs, values)


def seed_features(
    seed: "SeedSnapshot",
    *,
    health: "GradientHealth | None" = None,
    ratio: float | None = None,
) -> tuple[float, ...]:
    """Return the feature vector of one seed, as specified by ``SEED_FEATURES``.

    Args:
        seed: State of the seed.
        health: Health of its newest gradients.
        ratio: Root mean square of the seed's gradients over that of its host's.
    """
    values: Values = {
        "seed_gradient_norm": health.global_norm if health else None,
        "seed_gradient_ratio": ratio,
        "seed_stage": seed.stage / _STAGES,
        "seed_epochs_in_stage": seed.epochs_in_stage,
        "seed_epochs_total": seed.epochs_total,
        "seed_accuracy": seed.accuracy,
        "seed_accuracy_delta": seed.accuracy_delta,
        "seed_alpha": seed.alpha,
    }
    if health is not None and health.score is not None:
        values["seed_gradient_health"] = health.score
        values["seed_vanishing"] = len(health.vanishing) / health.layers
        values["seed_exploding"] = len(health.exploding) / health.layers
    return _vector(SEED_FEATURES, values)


def _vector(specs: Iterable[FeatureSpec], values: Values) -> tuple[float, ...]:
    """Return the vector in the order of the specifications. Entries that flag others as known are derived from these."""
    specs = tuple(specs)
    families: dict[str, list[bool]] = {}
    for spec in specs:
        if spec.known is not None:
            families.setdefault(spec.known, []).append(_is_known(values.get(spec.name)))
    known = {name: fmean(each) if name.endswith(_SHARED) else float(all(each)) for name, each in families.items()}
    return tuple(spec.value(known[spec.name] if spec.name in known else values.get(spec.name)) for spec in specs)


_SHARED: Final = "_changes_known"


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _progress(snapshot: "EpochSnapshot") -> Values:
    losses = (snapshot.train_loss, snapshot.validation_loss)
    return {
        "epoch": snapshot.epoch,
        "train_loss": snapshot.train_loss,
        "validation_loss": snapshot.validation_loss,
        "loss_delta": snapshot.loss_delta,
        "best_loss": snapshot.best_loss,
        "train_accuracy": snapshot.train_accuracy,
        "validation_accuracy": snapshot.validation_accuracy,
        "accuracy_delta": snapshot.accuracy_delta,
        "best_accuracy": snapshot.best_accuracy,
        "train_validation_gap": snapshot.train_validation_gap,
        "loss_noise": snapshot.loss_noise,
        "learning_rate": snapshot.learning_rate,
        "plateau_length": snapshot.plateau_length,
        "loss_nonfinite": float(any(loss is not None and not math.isfinite(loss) for loss in losses)),
    }


def _changes(history: "Sequence[EpochSnapshot]") -> Values:
    """Return the differences of the newest loss and accuracy from earlier ones."""
    found: Values = {}
    for what, name in (("loss", "validation_loss"), ("accuracy", "validation_accuracy")):
        newest, *earlier = [getattr(snapshot, name) for snapshot in reversed(history)]
        known = [each for each in earlier if each is not None and math.isfinite(each)][:LOOKED_BACK]
        if newest is not None and math.isfinite(newest):
            found |= {f"{what}_change_{back}": newest - each for back, each in enumerate(known, 1)}
    return found


def _flags(snapshot: "EpochSnapshot") -> Values:
    judged = [name for name in FLAGS if name in snapshot.judged_flags]
    return {f"flag_{name}": 1.0 if name in snapshot.red_flags else -1.0 for name in judged}


def _gradients(snapshot: "EpochSnapshot") -> Values:
    health = snapshot.gradient_health
    if health is None or health.score is None:
        return {}
    shares = {f"{kind}_layers": len(getattr(health, kind)) / health.layers for kind in ("vanishing", "exploding")}
    norms = [norm for norm in _finite(each.norm for each in snapshot.gradient_stats) if norm > 0]
    zeros = [each.zero_fraction for each in snapshot.gradient_stats if each.zero_fraction is not None]
    return {
        "gradient_health": health.score,
        "gradient_global_norm": health.global_norm,
        **shares,
        "nonfinite_layers": len(health.nonfinite) / health.layers,
        "gradient_norm_spread": pstdev(map(math.log10, norms)) if norms else None,
        "gradient_zero_fraction": max(zeros, default=None),
        **{percentile_feature(each): value for each, value in snapshot.gradient_percentiles.items()},
    }


def _weights(snapshot: "EpochSnapshot") -> Values:
    norms = _finite(snapshot.weight_norms.values())
    ratios = _finite(each.update_ratio for each in snapshot.gradient_stats)
    return {
        "weight_norm": median(norms) if norms else None,
        "update_ratio": median(ratios) if ratios else None,
        "update_ratio_largest": max(ratios, default=None),
    }


def _classes(snapshot: "EpochSnapshot") -> Values:
    accuracies = [min(max(each, 0.0), 1.0) for each in snapshot.known_class_accuracies.values()]
    found: Values = {
        "class_variance": snapshot.class_variance,
        "class_loss_worst": max(_finite(snapshot.per_class_loss.values()), default=None),
        "class_confusion_worst": _confusion(snapshot.confusion),
    }
    if accuracies:
        found["class_accuracy_mean"] = fmean(accuracies)
        found["class_accuracy_worst"], found["class_accuracy_best"] = min(accuracies), max(accuracies)
    return found


def _confusion(table: tuple[tuple[int, ...], ...] | None) -> float | None:
    """Return the largest share of a class's examples that was predicted as one other class."""
    shares = [
        count / sum(row)
        for true, row in enumerate(table or ())
        if sum(row)
        for other, count in enumerate(row)
        if other != true
    ]
    return max(shares, default=None)


def _sharpness(snapshot: "EpochSnapshot") -> Values:
    found: Values = {f"sharpness_{method}": value for method, value in snapshot.sharpness.items()}
    return found | {"stability_margin": snapshot.stability_margin}


def _finite(values: "Iterable[float | None]") -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
