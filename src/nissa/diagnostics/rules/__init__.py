"""Rules, worst first; each module has the name of its flag."""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.rules.dead_units import DeadUnits
from nissa.diagnostics.rules.divergence import Divergence
from nissa.diagnostics.rules.exploding_gradients import ExplodingGradients
from nissa.diagnostics.rules.gradient_spike import GradientSpike
from nissa.diagnostics.rules.learning_rate_too_high import LearningRateTooHigh
from nissa.diagnostics.rules.learning_rate_too_low import LearningRateTooLow
from nissa.diagnostics.rules.loss_spike import LossSpike
from nissa.diagnostics.rules.nonfinite_gradients import NonfiniteGradients
from nissa.diagnostics.rules.nonfinite_loss import NonfiniteLoss
from nissa.diagnostics.rules.overfitting import Overfitting
from nissa.diagnostics.rules.poor_gradient_health import PoorGradientHealth
from nissa.diagnostics.rules.severe_class_imbalance import SevereClassImbalance
from nissa.diagnostics.rules.sharp_minimum import SharpMinimum
from nissa.diagnostics.rules.stalled_layer import StalledLayer
from nissa.diagnostics.rules.sustained_plateau import SustainedPlateau
from nissa.diagnostics.rules.vanishing_gradients import VanishingGradients

if TYPE_CHECKING:
    from nissa.diagnostics.rule import Rule

RULES: "Final[tuple[type[Rule], ...]]" = (
    NonfiniteLoss,
    NonfiniteGradients,
    Divergence,
    ExplodingGradients,
    VanishingGradients,
    LossSpike,
    GradientSpike,
    DeadUnits,
    StalledLayer,
    PoorGradientHealth,
    LearningRateTooHigh,
    LearningRateTooLow,
    Overfitting,
    SevereClassImbalance,
    SustainedPlateau,
    SharpMinimum,
)
"""All rules, worst first."""
