"""Hyperparameters of a demo environment."""

from dataclasses import dataclass, field

from nissa.demo.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of an environment.

    The host's learning rate drops after the warm-up. From then on its accuracy changes little by itself, so that a gain
    can be attributed to the seed that is being blended in.
    """

    seed: int
    """Random seed of initial weights, image order and noise."""

    epochs: int
    """Number of epochs."""

    first_blueprint: int = 0
    """Index of the first blueprint to try; the others follow in order."""

    channels: int = 4
    """Number of channels of the host."""

    batch_size: int = 64
    """Number of images per batch."""

    warmup_epochs: int = 8
    """Number of epochs with the warm-up learning rate."""

    warmup_rate: float = 1e-2
    """Learning rate of the host during the warm-up."""

    host_rate: float = 1e-3
    """Learning rate of the host after the warm-up, and of fossilized seeds."""

    isolation_rate: float = 1e-2
    """Learning rate of a seed in isolation."""

    blending_rate: float = 4e-3
    """Learning rate of a seed from blending until it is fossilized or culled."""

    policy: Policy = field(default_factory=Policy)
    """Thresholds and time limits of the gates."""
