"""Statistics per blueprint and per environment."""

from dataclasses import dataclass, field

from nissa.analytics.sums import Mean, Sums


@dataclass(slots=True)
class BlueprintStats(Sums):
    """Outcomes of the seeds of one blueprint; accuracies are fractions.

    Args:
        germinated: Number of seeds that began.
        fossilized: Number of seeds made permanent.
        culled: Number of removed seeds.
        accuracy_delta: Reported improvement of fossilized seeds.
        churn: Reported improvement of culled seeds.
        blending_delta: Change of validation accuracy from the beginning of blending to the end of the seed.
        parameters: Parameter count of a seed.
        fossilized_by_slot: Fossilized seeds by slot.
        culled_by_slot: Culled seeds by slot.
        culled_by_stage: Culled seeds by the stage that they left.
    """

    germinated: int = 0
    fossilized: int = 0
    culled: int = 0
    accuracy_delta: Mean = field(default_factory=Mean)
    churn: Mean = field(default_factory=Mean)
    blending_delta: Mean = field(default_factory=Mean)
    parameters: Mean = field(default_factory=Mean)
    fossilized_by_slot: dict[str, int] = field(default_factory=dict)
    culled_by_slot: dict[str, int] = field(default_factory=dict)
    culled_by_stage: dict[str, int] = field(default_factory=dict)

    @property
    def fossilization_rate(self) -> float | None:
        """Fossilized seeds as a fraction of fossilized and culled ones; None before the first of them."""
        ended = self.fossilized + self.culled
        return self.fossilized / ended if ended else None


@dataclass(slots=True)
class Scoreboard(Sums):
    """Outcomes of the seeds of one environment, since its start or in an episode.

    Args:
        germinated: Number of seeds that began.
        fossilized: Number of seeds made permanent.
        culled: Number of removed seeds.
        parameters_added: Parameter count of fossilized seeds.
        fossilize_age: Epochs from germination to fossilization.
        cull_age: Epochs from germination to culling.
        distribution: Fossilized seeds by blueprint.
    """

    germinated: int = 0
    fossilized: int = 0
    culled: int = 0
    parameters_added: int = 0
    fossilize_age: Mean = field(default_factory=Mean)
    cull_age: Mean = field(default_factory=Mean)
    distribution: dict[str, int] = field(default_factory=dict)
