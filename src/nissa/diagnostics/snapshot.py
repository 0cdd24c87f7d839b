"""What one validation found, as a frozen value that is safe to print, keep and send."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from nissa.hub.measurements import GradientHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSnapshot:
    """The state of training after an epoch. What was not measured is None or empty, never 0.

    Args:
        epoch: Epoch number, None where ``validate()`` was called outside an epoch.
        train_loss: Mean of the losses logged in the epoch.
        validation_accuracy: As a fraction.
        train_validation_gap: Validation loss minus training loss.
        gradient_health: Of the newest gradients that were on the host.
        gradient_percentiles: Percentile of the absolute gradient values, as the median over layers.
        class_variance: Population variance of the per-class accuracies (fractions) that are finite.
        plateau_length: Epochs up to this one in which the validation loss did not move.
        best_accuracy: Highest validation accuracy so far, this epoch included.
        narrative: All of it in one line.
        red_flags: Findings that deserve attention.
        opportunities: Findings that invite action.
    """

    epoch: int | None
    env_id: str | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    loss_delta: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    accuracy_delta: float | None = None
    train_validation_gap: float | None = None
    gradient_health: GradientHealth | None = None
    gradient_percentiles: dict[float, float] = field(default_factory=dict)
    per_class_accuracy: dict[str, float] = field(default_factory=dict)
    class_variance: float | None = None
    plateau_length: int = 0
    best_loss: float | None = None
    best_accuracy: float | None = None
    narrative: str = "Training normally"
    red_flags: tuple[str, ...] = ()
    opportunities: tuple[str, ...] = ()

    @property
    def known_class_accuracies(self) -> dict[str, float]:
        """The per-class accuracies that are numbers: a class without examples has none."""
        return {name: value for name, value in self.per_class_accuracy.items() if math.isfinite(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as data that strict JSON can hold: absent entries left out, NaN and infinity as text."""
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        entries = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: _plain(entry) for name, entry in entries.items() if not _absent(entry)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite_or_text(float(value))
    return value


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | dict) and not value)


def _finite_or_text(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
