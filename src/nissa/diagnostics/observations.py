"""Observations collected when ``validate()`` is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.diagnostics.layers import LayerGradients
    from nissa.events import SeedSnapshot
    from nissa.hub.measurements import GradientHealth
    from nissa.hub.program_facts import ForwardModes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Input from which a `DiagnosticTracker` makes a snapshot. Unmeasured fields are None or empty.

    The other fields are documented at `EpochSnapshot`.

    Args:
        confusion: Confusion matrix; rows are true classes, in the order of ``class_names``.
        seeds: Current state of the environment's seeds that live, or ended since the previous validation.
        seed_ratios: Gradient ratios of growing seeds, by slot.
        incomplete: Names of the fields that are absent or partial because their values were not all copied to the host in
            time. Unlike other absent fields, these were measured.
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
    forward_modes: "ForwardModes | None" = None
    incomplete: tuple[str, ...] = ()
