"""Configuration section of the blueprint analytics: compute costs and the prior for untried blueprints."""

from typing import Annotated, Final

from pydantic import Field, field_validator

from nissa.config.section import Section


class Table(dict[str, float]):
    """Hashable dictionary of numbers, so that a configuration can be a cache key. Do not modify it."""

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash that is equal for equal tables."""
        return hash(frozenset(self.items()))


COMPUTE_MULTIPLIERS: Final = Table(
    {
        "noop": 1.0,
        "norm": 1.02,
        "conv_small": 1.05,
        "bottleneck": 1.05,
        "lora": 1.05,
        "depthwise": 1.08,
        "lora_large": 1.08,
        "conv_light": 1.15,
        "conv_enhance": 1.15,
        "mlp_small": 1.15,
        "mlp": 1.2,
        "conv_heavy": 1.25,
        "attention": 1.35,
        "flex_attention": 1.35,
    }
)
"""Compute of a network with one seed of the blueprint over its compute without; values of the original project."""

Multiplier = Annotated[float, Field(gt=0, le=1_000)]


class AnalyticsConfig(Section):
    """Compute costs of blueprints, and the prior for blueprints that were not tried yet."""

    compute_multipliers: dict[str, Multiplier] = Field(default_factory=lambda: COMPUTE_MULTIPLIERS)
    """Cost of a network with one seed of a blueprint, as a multiple of its cost without. Entries are added to the
    default table."""

    prior_successes: float = Field(default=1.0, ge=0.5, le=1_000)
    """Fossilized seeds credited to each untried blueprint: first parameter of the Beta prior."""

    prior_failures: float = Field(default=1.0, ge=0.5, le=1_000)
    """Culled seeds charged to each untried blueprint: second parameter of the Beta prior."""

    shrinkage: float = Field(default=3.0, gt=0, le=1_000)
    """Number of fossilized seeds at which a blueprint's own mean accuracy delta and that of all blueprints have equal
    weight."""

    compute_price: float = Field(default=0.1, ge=0, le=1_000)
    """Reward deducted for a doubling of the network's compute; see ``BlueprintAnalytics.rent``."""

    @field_validator("compute_multipliers")
    @classmethod
    def _add_to_table(cls, multipliers: dict[str, float]) -> dict[str, float]:
        return Table(COMPUTE_MULTIPLIERS | multipliers)
