"""What is known when ``validate()`` is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.diagnostics.layers import LayerGradients
    from nissa.events import SeedSnapshot
    from nissa.hub.measurements import GradientHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What a `DiagnosticTracker` makes a snapshot of; None or empty where nobody measured it.

    Fields mean what those of `EpochSnapshot` of the same name mean.

    Args:
        confusion: Rows are true classes, in the order of ``class_names``.
        seeds: Those of the environment that live, or ended since the validation before, as they are now.
        seed_ratios: Gradient ratios of growing seeds, by slot.
        incomplete: Names of those fields that were given or measured, and are absent or cover a part only since their numbers
            were not all on the host in time. Such a field is not known to have been absent.
    """

    epoch: int | None
    env_id: str | None = None
    time_unix_nano: int | None = None
    step: int | None = None
    learning_rate: float | None = None
    train_loss: float | None = None
    loss_noise: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    per_class_accuracy: Mapping[object, float | None] | None = None
    per_class_loss: Mapping[object, float | None] | None = None
    per_class_support: Mapping[object, int | None] | None = None
    confusion: Sequence[Sequence[int]] | None = None
    class_names: Sequence[object] = ()
    gradient_health: "GradientHealth | None" = None
    gradient_stats: "tuple[LayerGradients, ...]" = ()
    gradient_percentiles: Mapping[float, float] | None = None
    sharpness: Mapping[str, float] = field(default_factory=dict)
    sharpness_error: Mapping[str, float] = field(default_factory=dict)
    stability_margin: float | None = None
    seeds: "Sequence[SeedSnapshot]" = ()
    seed_ratios: Mapping[str, float] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
