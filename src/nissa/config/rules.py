"""Configuration section of the rules: thresholds of the red flags that depend on the program."""

from pydantic import Field

from nissa.config.section import Section


class RulesConfig(Section):
    """Thresholds of the rules that raise red flags. An observation is a step, a sampled step or a validation."""

    warm_up: int = Field(default=10, ge=2, le=10_000)
    """Number of observations before a rule compares a layer or a loss with its baseline."""

    window: int = Field(default=64, ge=8, le=4_096)
    """Number of observations in a baseline."""

    confirmations: int = Field(default=3, ge=1, le=1_000)
    """Consecutive bad samples that raise a flag about gradients."""

    recoveries: int = Field(default=5, ge=1, le=1_000)
    """Consecutive good observations that clear a flag."""

    cooldown: int = Field(default=20, ge=0, le=100_000)
    """Number of observations after a flag was cleared in which it is not raised again."""

    validations: int = Field(default=2, ge=1, le=1_000)
    """Consecutive bad validations that raise a flag about epochs."""

    vanishing_ratio: float = Field(default=1e-5, gt=0, lt=1)
    """Root mean square of a layer's gradient, relative to the layer with the largest one, below which it vanishes."""

    exploding_norm: float = Field(default=1e3, gt=0, le=1e30)
    """Global gradient norm above which gradients explode, whatever their baseline."""

    dead_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of exact zeros in a layer's gradient from which its units count as dead."""

    poor_health: float = Field(default=0.5, gt=0, le=1)
    """Gradient health below which it is poor."""

    spike_deviations: float = Field(default=6.0, gt=0, le=1e3)
    """Robust standard deviations above the median from which a loss or a gradient norm is a spike."""

    judged_after: int = Field(default=150, ge=10, le=10_000_000)
    """Number of steps, such as those of a learning rate warm-up, before a lack of progress is blamed on the learning rate."""

    converged_share: float = Field(default=0.3, ge=0, lt=1)
    """Validation loss, as a share of the first one, below which an unchanged loss has converged and is not a plateau."""

    sharpness: float = Field(default=1.0, gt=0, le=1e9)
    """Average-case sharpness above which a minimum is sharp."""
