"""What a snapshot keeps about single classes."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nissa.config import PerClassConfig
    from nissa.diagnostics.observations import Observations
    from nissa.semconv.cardinality import CardinalityLimiter


def of_classes(seen: "Observations", config: "PerClassConfig", classes: "CardinalityLimiter") -> dict[str, Any]:
    """Return the fields of the snapshot that are about classes, as far as the configuration wants them.

    Args:
        seen: What was observed.
        config: What is wanted.
        classes: Decides which classes are kept.
    """
    if not config.enabled:
        return {}
    accuracies = _named(seen.per_class_accuracy, classes)
    found: dict[str, Any] = {
        "per_class_accuracy": accuracies,
        "per_class_support": {name: int(count) for name, count in _named(seen.per_class_support, classes).items()},
        "class_variance": _variance([each for each in accuracies.values() if math.isfinite(each)]),
    }
    if config.track_loss:
        found["per_class_loss"] = _named(seen.per_class_loss, classes)
    # A part of it would misrepresent the rest: an example that was taken for a class left out is nowhere.
    if config.track_confusion and seen.confusion is not None and len(seen.confusion) <= config.max_classes:
        found["confusion"] = tuple(tuple(int(count) for count in row) for row in seen.confusion)
        found["class_names"] = tuple(str(name) for name in seen.class_names)
    return found


def _named(given: Mapping[object, float | None] | None, classes: "CardinalityLimiter") -> dict[str, float]:
    known = ((str(name), float(value)) for name, value in (given or {}).items() if value is not None)
    return {name: value for name, value in known if classes.own(name) is not None}


def _variance(values: list[float]) -> float | None:
    """Return the population variance; the standard library's raises where it exceeds what a float holds."""
    if not values:
        return None
    mean = sum(values) / len(values)
    return sum((value - mean) * (value - mean) for value in values) / len(values)
