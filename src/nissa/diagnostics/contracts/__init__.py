"""Contracts: conditions that every correct training keeps; each module has the name of its flag."""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.contracts.clipping_too_low import ClippingTooLow
from nissa.diagnostics.contracts.constant_initialization import ConstantInitialization
from nissa.diagnostics.contracts.evaluation_mode_in_training import EvaluationModeInTraining
from nissa.diagnostics.contracts.every_step_skipped import EveryStepSkipped
from nissa.diagnostics.contracts.gradients_never_zeroed import GradientsNeverZeroed
from nissa.diagnostics.contracts.gradients_zeroed_before_step import GradientsZeroedBeforeStep
from nissa.diagnostics.contracts.half_precision_underflow import HalfPrecisionUnderflow
from nissa.diagnostics.contracts.learning_rate_zero import LearningRateZero
from nissa.diagnostics.contracts.only_normalization_trains import OnlyNormalizationTrains
from nissa.diagnostics.contracts.probabilities_as_logits import ProbabilitiesAsLogits
from nissa.diagnostics.contracts.replaced_parameters import ReplacedParameters
from nissa.diagnostics.contracts.same_batch import SameBatch
from nissa.diagnostics.contracts.sorted_batches import SortedBatches
from nissa.diagnostics.contracts.unchanging_weights import UnchangingWeights
from nissa.diagnostics.contracts.unoptimized_parameters import UnoptimizedParameters
from nissa.diagnostics.contracts.unscaled_inputs import UnscaledInputs
from nissa.diagnostics.contracts.unused_parameters import UnusedParameters
from nissa.diagnostics.contracts.validation_in_training_mode import ValidationInTrainingMode

if TYPE_CHECKING:
    from nissa.diagnostics.contracts.contract import Contract

CONTRACTS: "Final[tuple[type[Contract], ...]]" = (
    ReplacedParameters,
    GradientsZeroedBeforeStep,
    HalfPrecisionUnderflow,
    EveryStepSkipped,
    GradientsNeverZeroed,
    LearningRateZero,
    UnchangingWeights,
    ConstantInitialization,
    UnoptimizedParameters,
    UnusedParameters,
    OnlyNormalizationTrains,
    ProbabilitiesAsLogits,
    UnscaledInputs,
    SameBatch,
    SortedBatches,
    EvaluationModeInTraining,
    ValidationInTrainingMode,
    ClippingTooLow,
)
"""All contracts, worst first. Each names a cause, so that they come before the rules, which name symptoms."""
