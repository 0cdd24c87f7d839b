"""Layout of the feature vector for policies: name, range, transform and meaning of each entry.

The layout depends on the configuration only, so that a policy can size its input before training starts. An entry that
was not measured stays in the vector with value 0, and the mask entry named by its ``known`` is 0 too.
"""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Final

from nissa.config.feature_scaling import Clip, Decades, FeatureSpec, Saturate, Transform

if TYPE_CHECKING:
    from nissa.config.models import TelemetryConfig
    from nissa.config.sections import GradientConfig

FEATURE_VERSION: Final = 1
"""Version of the layout; changes with the names, their order or the transforms."""

LOOKED_BACK: Final = 4
"""Number of earlier validations to which changes are computed."""

FLAGS: Final = (
    "nonfinite_loss",
    "nonfinite_gradients",
    "divergence",
    "exploding_gradients",
    "vanishing_gradients",
    "loss_spike",
    "gradient_spike",
    "dead_units",
    "stalled_layer",
    "poor_gradient_health",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "overfitting",
    "severe_class_imbalance",
    "sustained_plateau",
    "sharp_minimum",
)
"""Red flags with an entry in the vector."""

_SHARE: Final = Clip()
_LOSS: Final = Saturate(1.0)
_LOSS_CHANGE: Final = Saturate(0.1)
_POINTS: Final = Saturate(0.05)
_SIZE: Final = Decades(-8, 8)


def _family(
    known: str, squash: Transform, entries: Iterable[tuple[str, str]], *, signed: bool = False
) -> list[FeatureSpec]:
    """Return entries that are measured together, followed by their mask entry (1 if all were measured, else 0)."""
    low = -1.0 if signed else 0.0
    found = [FeatureSpec(name, low, 1.0, squash, meaning, known=known) for name, meaning in entries]
    return [*found, _mask(known, ", ".join(f"`{spec.name}`" for spec in found))]


def _mask(name: str, of: str) -> FeatureSpec:
    return FeatureSpec(name, 0.0, 1.0, _SHARE, f"1 if all of {of} was measured, else 0")


def _one(name: str, squash: Transform, meaning: str, *, signed: bool = False) -> list[FeatureSpec]:
    return _family(f"{name}_known", squash, [(name, meaning)], signed=signed)


def _changes(what: str, squash: Transform) -> list[FeatureSpec]:
    name = f"{what}_changes_known"
    entries = [
        FeatureSpec(
            f"{what}_change_{back}", -1.0, 1.0, squash, f"Validation {what} minus that of {back} before", known=name
        )
        for back in range(1, LOOKED_BACK + 1)
    ]
    meaning = f"Number of these that were measured, divided by {LOOKED_BACK}. They are the first ones, because validations without a value are skipped"
    return [*entries, FeatureSpec(name, 0.0, 1.0, _SHARE, meaning)]


_PROGRESS: Final = (
    *_one("epoch", Saturate(50.0), "Number of the epoch"),
    *_one("train_loss", _LOSS, "Mean of the losses logged in the epoch", signed=True),
    *_one("validation_loss", _LOSS, "Validation loss", signed=True),
    *_one("loss_delta", _LOSS_CHANGE, "Change of the validation loss since the previous validation", signed=True),
    *_one("best_loss", _LOSS, "Lowest validation loss so far", signed=True),
    *_one("train_accuracy", _SHARE, "Training accuracy"),
    *_one("validation_accuracy", _SHARE, "Validation accuracy"),
    *_one("accuracy_delta", _POINTS, "Change of the validation accuracy since the previous validation", signed=True),
    *_one("best_accuracy", _SHARE, "Highest validation accuracy so far"),
    *_one("train_validation_gap", Saturate(0.5), "Validation loss minus training loss", signed=True),
    *_one("loss_noise", Saturate(0.1), "Standard deviation of the losses logged in the epoch"),
    *_one("learning_rate", Decades(-8, 2), "Learning rate of the newest step"),
    FeatureSpec("plateau_length", 0.0, 1.0, Saturate(5.0), "Number of epochs without a change of the validation loss"),
    FeatureSpec("loss_nonfinite", 0.0, 1.0, _SHARE, "1 if the training or validation loss is NaN or infinite"),
    *_changes("loss", _LOSS_CHANGE),
    *_changes("accuracy", _POINTS),
    *(
        FeatureSpec(f"flag_{name}", -1.0, 1.0, Clip(-1.0), "1 raised, -1 judged and not raised, 0 not judged")
        for name in FLAGS
    ),
)

_GRADIENTS: Final = (
    *_family(
        "gradient_health_known",
        _SHARE,
        [
            ("gradient_health", "Health score of the newest gradients"),
            ("vanishing_layers", "Share of layers whose gradients vanish"),
            ("exploding_layers", "Share of layers whose gradients explode"),
            ("nonfinite_layers", "Share of layers with NaN or infinite gradients"),
        ],
    ),
    *_one("gradient_global_norm", _SIZE, "L2 norm over all layers"),
    *_one("gradient_norm_spread", Saturate(1.0), "Standard deviation of the layers' norms in decades, without zeros"),
    *_one("gradient_zero_fraction", _SHARE, "Largest share of exact zeros in a layer"),
)

_CLASSES: Final = (
    *_family(
        "class_accuracy_known",
        _SHARE,
        [
            ("class_accuracy_mean", "Mean of the per-class accuracies"),
            ("class_accuracy_worst", "Lowest per-class accuracy"),
            ("class_accuracy_best", "Highest per-class accuracy"),
        ],
    ),
    *_one("class_variance", Saturate(0.02), "Population variance of the per-class accuracies"),
)

SEED_FEATURES: Final = (
    *_one("seed_gradient_norm", _SIZE, "L2 norm of the seed's newest gradients"),
    *_family(
        "seed_gradient_health_known",
        _SHARE,
        [
            ("seed_gradient_health", "Health score of the seed's newest gradients"),
            ("seed_vanishing", "Share of the seed's layers whose gradients vanish"),
            ("seed_exploding", "Share of the seed's layers whose gradients explode"),
        ],
    ),
    *_one("seed_gradient_ratio", Decades(-4, 4), "Root mean square of the seed's gradients over that of the host's"),
    FeatureSpec("seed_stage", 0.0, 1.0, _SHARE, "Number of the stage divided by 10: training is 0.3, fossilized 0.7"),
    FeatureSpec("seed_epochs_in_stage", 0.0, 1.0, Saturate(10.0), "Number of epochs that ended in this stage"),
    FeatureSpec("seed_epochs_total", 0.0, 1.0, Saturate(25.0), "Number of epochs that ended since germination"),
    *_one("seed_accuracy", _SHARE, "Validation accuracy of the environment"),
    *_one(
        "seed_accuracy_delta", _POINTS, "Change of that accuracy since blending began; not known before", signed=True
    ),
    *_one("seed_alpha", _SHARE, "Blending weight alpha"),
)
"""Layout of the feature vector of a seed; independent of the configuration."""


def feature_specs(config: "TelemetryConfig") -> tuple[FeatureSpec, ...]:
    """Return the entries of the vector, in order."""
    return tuple(chain(_PROGRESS, _of_gradients(config.gradients), _of_classes(config), _of_sharpness(config)))


def feature_names(config: "TelemetryConfig") -> tuple[str, ...]:
    """Return the names of the entries of the vector, in order."""
    return tuple(spec.name for spec in feature_specs(config))


def percentile_feature(percentile: float) -> str:
    """Return the name of the feature for a percentile (median over layers): ``gradient_p99`` for 99."""
    short = f"{percentile:g}"
    # `:g` rounds to six digits, so 99.99999 would get the name of 100.
    return f"gradient_p{short if float(short) == percentile else repr(percentile)}"


def _of_gradients(gradients: "GradientConfig") -> Iterable[FeatureSpec]:
    if not gradients.enabled:
        return
    yield from _GRADIENTS
    if gradients.percentiles:  # empty without a histogram: the model validates that
        features = [(percentile_feature(p), f"Percentile {p:g}, median over layers") for p in gradients.percentiles]
        yield from _family("gradient_percentiles_known", _SIZE, features)
    if gradients.weight_norms:
        yield from _one("weight_norm", Decades(-4, 4), "L2 norm of a layer's weights, median over layers")
    if gradients.update_ratios:
        features = [
            ("update_ratio", "Change of a layer's weights over their norm, median over layers"),
            ("update_ratio_largest", "Largest update ratio of a layer"),
        ]
        yield from _family("update_ratio_known", Decades(-8, 0), features)


def _of_classes(config: "TelemetryConfig") -> Iterable[FeatureSpec]:
    if not config.per_class.enabled:
        return
    yield from _CLASSES
    if config.per_class.track_loss:
        yield from _one("class_loss_worst", _LOSS, "Highest of the per-class losses", signed=True)
    if config.per_class.track_confusion:
        yield from _one(
            "class_confusion_worst", _SHARE, "Largest share of a class's examples that are predicted as one other class"
        )


def _of_sharpness(config: "TelemetryConfig") -> Iterable[FeatureSpec]:
    if not config.sharpness.enabled:
        return
    for method in config.sharpness.methods:
        yield from _one(f"sharpness_{method}", Saturate(10.0), f"Sharpness by {method}", signed=True)
    if "critical" in config.sharpness.methods:
        yield from _one("stability_margin", Saturate(1.0), "Learning rate over the critical one")
