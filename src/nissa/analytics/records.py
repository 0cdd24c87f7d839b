"""What is kept of a blueprint, and of an environment."""

from dataclasses import dataclass, field

from nissa.analytics.sums import Mean, Sums


@dataclass(slots=True)
class BlueprintStats(Sums):
    """What became of the seeds of one blueprint; accuracies are fractions.

    Args:
        germinated: Seeds that began.
        fossilized: Seeds that were made permanent.
        culled: Seeds that were removed.
        accuracy_delta: Improvement that fossilized seeds were told to have brought.
        churn: The same of culled ones.
        blending_delta: Change of validation accuracy from the beginning of blending to the end of the seed.
        parameters: Parameters of a seed.
        fossilized_by_slot: Fossilized seeds by the slot that they were grafted into.
        culled_by_slot: Culled seeds by slot.
        culled_by_stage: Culled seeds by the stage in which they were.
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
        """Fossilized seeds as a fraction of those whose fate is decided; None where none is."""
        ended = self.fossilized + self.culled
        return self.fossilized / ended if ended else None


@dataclass(slots=True)
class Scoreboard(Sums):
    """What became of the seeds of one environment, since it began or since an episode did.

    Args:
        germinated: Seeds that began.
        fossilized: Seeds that were made permanent.
        culled: Seeds that were removed.
        parameters_added: Parameters of fossilized seeds.
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
