"""Snapshot of one validation or diagnosis, as a frozen value that is safe to print, keep and send."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.finding import Finding
from nissa.diagnostics.layers import LayerGradients
from nissa.diagnostics.seed_findings import SeedFinding
from nissa.errors import ConfigurationError
from nissa.events import json_number
from nissa.hub.measurements import GradientHealth
from nissa.hub.program_facts import ForwardModes

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSnapshot:
    """State of training at a validation, or at a call of ``diagnose()``. Unmeasured values are None or empty, never 0; NaN is a measured value.

    Args:
        epoch: Number of the open or last epoch; None without one.
        time_unix_nano: Time of the call, nanoseconds since the Unix epoch.
        step: Newest step of the environment whose values are on the host.
        learning_rate: Learning rate of the first parameter group in that step.
        train_loss: Mean of the losses logged in the epoch; in a loop without epochs, of the newest ones: at most 1,000, and
            at most ``diagnosis.every_n_steps``.
        train_loss_delta: Its change since the previous validation; in a diagnosis, since the previous diagnosis.
        first_train_loss: Median of the first losses of the environment's first watch, at the beginning the first one.
        loss_noise: Standard deviation of those losses (population); None below two of them.
        validation_accuracy: Validation accuracy as a fraction, like all accuracies.
        train_validation_gap: Validation loss minus training loss; None if the first two differ so much that they cannot measure
            the same, such as sums over different numbers of examples.
        loss_delta: Change of the validation loss since the previous validation; likewise ``accuracy_delta``.
        gradient_health: Health of the newest gradients whose statistics are on the host.
        gradient_stats: Statistics of those gradients per layer.
        gradient_percentiles: Percentiles of the absolute gradient values, as the median over layers.
        weight_norms: L2 norm of each layer's weights, if measured.
        per_class_accuracy: Accuracy by class name, if the profile has ``per_class``; likewise loss and support, the number
            of examples.
        confusion: Number of examples by true class (rows) and predicted class, both in the order of ``class_names``.
        class_variance: Population variance of the finite per-class accuracies (fractions).
        sharpness: Sharpness by method, if measured with this validation.
        sharpness_error: Standard errors of the sharpness, by method.
        stability_margin: Learning rate over the critical one; above 1 the next step raises the loss of its batch.
        plateau_length: Number of epochs up to this one in which the validation loss did not move.
        best_accuracy: Highest validation accuracy so far, this epoch included.
        seeds: Changes of seeds since the previous validation, most important first.
        narrative: Summary in one line of at most 280 characters.
        red_flags: Names of the raised flags, worst first.
        judged_flags: Names of the flags that were judged so far, raised or not.
        findings: Findings of the raised flags, worst first: layers, numbers and advice.
        opportunities: Names of states that invite an action.
        forward_modes: Forward passes without gradients since the last step, by mode; None if no hook counts them.
        incomplete: Fields that are absent or partial because their values were not all copied to the host in time, for
            example ``("train_loss",)``.
    """

    epoch: int | None
    env_id: str | None = None
    time_unix_nano: int | None = None
    step: int | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    train_loss_delta: float | None = None
    first_train_loss: float | None = None
    loss_noise: float | None = None
    validation_loss: float | None = None
    loss_delta: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    accuracy_delta: float | None = None
    train_validation_gap: float | None = None
    gradient_health: GradientHealth | None = None
    gradient_stats: tuple[LayerGradients, ...] = ()
    gradient_percentiles: dict[float, float] = field(default_factory=dict)
    weight_norms: dict[str, float] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    per_class_accuracy: dict[str, float] = field(default_factory=dict)
    per_class_loss: dict[str, float] = field(default_factory=dict)
    per_class_support: dict[str, int] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] | None = None
    class_variance: float | None = None
    sharpness: dict[str, float] = field(default_factory=dict)
    sharpness_error: dict[str, float] = field(default_factory=dict)
    stability_margin: float | None = None
    plateau_length: int = 0
    best_loss: float | None = None
    best_accuracy: float | None = None
    seeds: tuple[SeedFinding, ...] = ()
    narrative: str = "Training normally"
    red_flags: tuple[str, ...] = ()
    judged_flags: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    opportunities: tuple[str, ...] = ()
    forward_modes: ForwardModes | None = None
    incomplete: tuple[str, ...] = ()

    @property
    def known_class_accuracies(self) -> dict[str, float]:
        """Finite per-class accuracies; a class without examples has none."""
        return {name: value for name, value in self.per_class_accuracy.items() if math.isfinite(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as data for strict JSON: without absent entries, and with NaN and infinity as text."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "EpochSnapshot":
        """Return the snapshot from the result of ``to_dict``, directly or from JSON; ignore unknown entries.

        Raises:
            ConfigurationError: The data does not come from ``to_dict``.
        """
        try:
            return _adapter().validate_python({"epoch": None, **data})
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"This is not data of EpochSnapshot.to_dict(): {error}") from error


@cache
def _adapter() -> "TypeAdapter[EpochSnapshot]":
    from pydantic import TypeAdapter  # noqa: PLC0415 - needed only to read snapshots back

    return TypeAdapter(EpochSnapshot)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        entries = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: _plain(entry) for name, entry in entries.items() if not _absent(entry)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return _plain_number(value) if isinstance(value, Real) else value


def _plain_number(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else json_number(float(value))


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | dict) and not value)
