"""Per-class fields of a snapshot."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nissa.hub.plain_data import to_name

if TYPE_CHECKING:
    from nissa.config import PerClassConfig
    from nissa.diagnostics.observations import Observations
    from nissa.semconv.cardinality import CardinalityLimiter


def of_classes(observations: "Observations", config: "PerClassConfig", classes: "CardinalityLimiter") -> dict[str, Any]:
    """Return the per-class fields of a snapshot that the configuration enables.

    Args:
        observations: Observations at the validation.
        config: Settings of the per-class fields.
        classes: Limiter of the number of classes.
    """
    if not config.enabled:
        return {}
    accuracies = _named(observations.per_class_accuracy, classes)
    found: dict[str, Any] = {
        "per_class_accuracy": accuracies,
        "per_class_support": {
            name: int(count) for name, count in _named(observations.per_class_support, classes).items()
        },
        "class_variance": _variance([each for each in accuracies.values() if math.isfinite(each)]),
    }
    if config.track_loss:
        found["per_class_loss"] = _named(observations.per_class_loss, classes)
    # Do not truncate the matrix: examples predicted as a dropped class would disappear from their row.
    if (
        config.track_confusion
        and observations.confusion is not None
        and len(observations.confusion) <= config.max_classes
    ):
        found["confusion"] = tuple(tuple(int(count) for count in row) for row in observations.confusion)
        found["class_names"] = tuple(to_name(name) or "None" for name in observations.class_names)
    return found


def _named(by_class: Mapping[object, float | None] | None, classes: "CardinalityLimiter") -> dict[str, float]:
    known = ((to_name(name) or "None", float(value)) for name, value in (by_class or {}).items() if value is not None)
    return {name: value for name, value in known if classes.own(name) is not None}


def _variance(values: list[float]) -> float | None:
    """Return the population variance. That of the standard library raises on a result above the range of a float."""
    if not values:
        return None
    mean = sum(values) / len(values)
    return sum((value - mean) * (value - mean) for value in values) / len(values)
