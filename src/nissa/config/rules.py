"""Configuration section of the rules: thresholds of the red flags."""

from pydantic import Field

from nissa.config.section import Section


class RulesConfig(Section):
    """Thresholds of the rules that raise red flags. An observation is a step, a sampled step or a validation."""

    warm_up: int = Field(default=10, ge=2, le=10_000)
    """Observations before a rule compares a layer, or a loss, with its own past."""

    window: int = Field(default=64, ge=8, le=4_096)
    """Observations that such a past consists of."""

    confirmations: int = Field(default=3, ge=1, le=1_000)
    """Sampled steps in a row that must look bad before a rule about gradients says so."""

    recoveries: int = Field(default=5, ge=1, le=1_000)
    """Observations in a row that must look good before a rule says that it is over."""

    cooldown: int = Field(default=20, ge=0, le=100_000)
    """Observations after the end of a trouble in which the same rule says nothing new."""

    vanishing_ratio: float = Field(default=1e-5, gt=0, lt=1)
    """Root mean square of a layer's gradient, over that of the layer where it is largest, below which it vanishes."""

    exploding_norm: float = Field(default=1e3, gt=0, le=1e30)
    """Global gradient norm above which gradients explode, whatever they were before."""

    exploding_rise: float = Field(default=50.0, gt=1, le=1e9)
    """Global gradient norm over its own median above which gradients explode, where it lasts."""

    dead_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of a layer's gradient that is exactly zero from which its units are called dead."""

    dead_rise: float = Field(default=0.4, gt=0, le=1)
    """How far that share must have risen above the layer's own median."""

    stalled_drop: float = Field(default=1e-3, gt=0, lt=1)
    """A layer's share of the global gradient norm, over its own median, below which it stalls."""

    poor_health: float = Field(default=0.5, gt=0, le=1)
    """Gradient health below which it is poor."""

    spike_deviations: float = Field(default=6.0, gt=0, le=1e3)
    """Robust standard deviations above the median of the window from which a loss or gradient norm is a spike."""

    loss_spike_share: float = Field(default=0.5, gt=0, le=1e3)
    """How far a loss must rise above its median to be a spike, as a share of the first losses."""

    gradient_spike_ratio: float = Field(default=5.0, gt=1, le=1e6)
    """Global gradient norm, over the largest one of its past, from which it is a spike."""

    divergence_share: float = Field(default=0.5, gt=0, le=1e3)
    """Share of what training had gained that a smoothed loss must have lost again to be called divergence."""

    slow_progress: float = Field(default=0.1, gt=0, lt=1)
    """Share of the first losses below which the progress of the first steps counts as little."""

    judged_after: int = Field(default=150, ge=10, le=10_000_000)
    """Steps after which the learning rate is judged by what training gained."""

    first_steps_rise: float = Field(default=4.0, gt=1, le=1e6)
    """How often its own beginning a loss must be, in those steps, for the learning rate to be called too high."""

    oscillation: float = Field(default=0.2, gt=0, le=1e3)
    """Median change of the loss from step to step, as a share of the first losses, from which it oscillates."""

    converged_share: float = Field(default=0.3, ge=0, lt=1)
    """Validation loss, as a share of the first one, below which standing still is the end of training and no plateau."""

    still: float = Field(default=0.01, gt=0, lt=1)
    """Fall of the validation loss since the one before, as a share of it, that is movement even within a plateau."""

    validations: int = Field(default=2, ge=1, le=1_000)
    """Validations in a row that must look bad before a rule about epochs says so."""

    class_variance: float = Field(default=0.02, gt=0, le=1)
    """Variance of the class accuracies (fractions) above which their imbalance is severe."""

    settled: float = Field(default=0.03, gt=0, le=1)
    """Change of the mean class accuracy within two validations up to which classes are compared."""

    sharpness: float = Field(default=1.0, gt=0, le=1e9)
    """Average-case sharpness above which a minimum is called sharp."""

    stability_margin: float = Field(default=1.25, gt=0, le=1e3)
    """Learning rate over the critical one above which a minimum is called sharp; whole-batch training settles around 1."""
