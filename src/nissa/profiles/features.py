"""Names of the numbers that one epoch's snapshot contributes to a fixed-length vector.

They follow from the configuration alone, so that a policy can size its input before training starts. What was not
measured in an epoch keeps its place in the vector.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.profiles.models import TelemetryConfig
    from nissa.profiles.sections import GradientConfig

_PROGRESS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "loss_delta",
    "train_accuracy",
    "validation_accuracy",
    "accuracy_delta",
    "train_validation_gap",
    "plateau_length",
    "best_accuracy",
    "best_loss",
)

_GRADIENTS = (
    "gradient_global_norm",
    "gradient_health",
    "vanishing_layers",
    "exploding_layers",
    "nonfinite_layers",
)

_CLASSES = (
    "class_accuracy_mean",
    "class_accuracy_worst",
    "class_accuracy_best",
    "class_variance",
)


def feature_names(config: "TelemetryConfig") -> tuple[str, ...]:
    """Return the names in the order of the vector."""
    return (
        *_PROGRESS,
        *(_gradient_names(config.gradients) if config.gradients.enabled else ()),
        *(_CLASSES if config.per_class.enabled else ()),
    )


def percentile_feature(percentile: float) -> str:
    """Return the name of the median over layers of one percentile, as in ``gradient_p99``."""
    short = f"{percentile:g}"
    # Six digits would give 99.99999 the name of 100.
    return f"gradient_p{short if float(short) == percentile else repr(percentile)}"


def _gradient_names(gradients: "GradientConfig") -> tuple[str, ...]:
    # Without a histogram there are no percentiles: the model sees to that.
    return (*_GRADIENTS, *map(percentile_feature, gradients.percentiles))
