"""How an environment trains: sizes, rates and schedule, all in one place."""

from dataclasses import dataclass, field

from nissa.demo.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an environment trains.

    The rate falls when the host has warmed up: from then on its accuracy moves little by itself, and what it gains can
    be put down to the seed that is being blended in.
    """

    seed: int
    """Decides all that is random: initial weights, order of the images, noise."""

    epochs: int
    """Epochs to train."""

    first_blueprint: int = 0
    """Index of the blueprint that is tried first; the others follow in turn."""

    channels: int = 4
    """Width of the host."""

    batch_size: int = 64
    """Images in a batch."""

    warmup_epochs: int = 8
    """Epochs at the warm-up rate."""

    warmup_rate: float = 1e-2
    """The host's learning rate at first."""

    host_rate: float = 1e-3
    """The host's learning rate after that, and that of a seed which has become part of it."""

    isolation_rate: float = 1e-2
    """Learning rate of a seed in isolation."""

    blending_rate: float = 4e-3
    """Learning rate of a seed from blending to its fate."""

    policy: Policy = field(default_factory=Policy)
    """When to grow, and what to keep."""
