"""Expected outcome of a blueprint, estimated from the outcomes of its seeds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nissa.analytics.beta import beta_quantile

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from nissa.analytics.records import BlueprintStats
    from nissa.config.analytics import AnalyticsConfig

CREDIBLE: Final = 0.95
"""Probability that the success rate lies in the credible interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlueprintPrior:
    """Expected outcome of the next seed of a blueprint.

    Args:
        blueprint: Name of the blueprint.
        alpha: First parameter of the Beta posterior of the success rate: prior successes plus fossilized seeds.
        beta: Second parameter: prior failures plus culled seeds.
        success: Mean of the posterior, the probability that a seed is fossilized.
        low: Lower end of the 95 % credible interval.
        high: Upper end of the interval.
        accuracy_delta: Mean improvement of fossilized seeds as a fraction, shrunk towards the mean of all blueprints; None
            if no seed of any blueprint reported an improvement.
        trials: Number of fossilized and culled seeds.
    """

    blueprint: str
    alpha: float
    beta: float
    success: float
    low: float
    high: float
    accuracy_delta: float | None
    trials: int

    def sample(self, generator: "random.Random") -> float:
        """Draw a success rate from the posterior, for Thompson sampling, with the caller's generator."""
        return generator.betavariate(self.alpha, self.beta)


def prior(
    blueprint: str, stats: "BlueprintStats", everything: "Iterable[BlueprintStats]", config: "AnalyticsConfig"
) -> BlueprintPrior:
    """Return the expected outcome of a blueprint."""
    a, b = config.prior_successes + stats.fossilized, config.prior_failures + stats.culled
    tail = (1 - CREDIBLE) / 2
    return BlueprintPrior(
        blueprint=blueprint,
        alpha=a,
        beta=b,
        success=a / (a + b),
        low=beta_quantile(tail, a, b),
        high=beta_quantile(1 - tail, a, b),
        accuracy_delta=_shrunk(stats, everything, config.shrinkage),
        trials=stats.fossilized + stats.culled,
    )


def _shrunk(stats: "BlueprintStats", everything: "Iterable[BlueprintStats]", strength: float) -> float | None:
    deltas = [each.accuracy_delta for each in everything]
    count, total = sum(each.count for each in deltas), sum(each.total for each in deltas)
    if not count:
        return None
    own = stats.accuracy_delta
    return (strength * total / count + own.total) / (strength + own.count)
