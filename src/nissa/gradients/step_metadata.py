"""What accompanies a step's numbers on their way to the host, and what decides which steps are sampled."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nissa.gradients.sampling import FixedInterval, SamplingSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nissa.events import SpanIds
    from nissa.gradients.capture import Measures, Sampled
    from nissa.gradients.packing import Packing
    from nissa.gradients.sampling import OverheadBudget
    from nissa.gradients.selection import Selection

LOSS, RATE, OVERFLOW, CLIP_NORM = "loss", "learning_rate", "found_inf", "clip_norm"
"""Numbers that may travel with a step."""

OVERHEAD, INTERVAL = "overhead", "interval"
"""Numbers about watching itself, which travel with the steps that are sampled."""

SKIPPED_CALLS, SKIPPED_SAMPLES = "skipped_calls:", "skipped_samples:"
"""Prefixes of the cumulative counts of skipped calls, see `nissa.gradients.skips.SkipCount`."""

WINDOW: Final = 10
"""Steps over which overhead is measured where none is sampled."""


@dataclass(slots=True)
class DeliveryProgress:
    """Progress of the delivery of one watch's rows; only the delivery writes the counts.

    It belongs to the watch and accompanies each of its rows: a watch that replaces another under the same name begins
    at zero, even while rows of the older one are still on their way.

    Args:
        steps: Number of the step that comes next.
        samples: Number of the sample that comes next.
        skipped: Skipped steps that were recorded.
        closed: Whether the watch has ended, so that its rows no longer replace the newest statistics of its name.
    """

    steps: int = 0
    samples: int = 0
    skipped: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetadata:
    """What the host knows about a step while its numbers are on their way.

    Args:
        step: How many calls of ``step()`` the watch saw before.
        primary: Whether the optimizer is the first that its environment watches, whose steps are *the* steps.
        sampled: What the gradients' statistics are of, None where the step was not sampled.
        packing: How the numbers are taken apart.
        known: Numbers that were on the host already.
        skipped: The optimizer was not called, since gradients were not finite.
        unbegun: How many such steps there were up to and including this row, beside the calls.
        samples: How many calls were sampled before.
        delivered: Which rows of the watch were delivered.
        clip_limit: The largest norm that gradients were clipped to, None where they were not.
    """

    env_id: str | None
    model_name: str | None
    step: int
    primary: bool
    time_unix_nano: int
    duration: float | None
    epoch_ids: "SpanIds | None"
    sampled: "Sampled | None"
    packing: "Packing"
    known: "Mapping[str, float]"
    delivered: DeliveryProgress
    skipped: bool = False
    unbegun: int = 0
    samples: int = 0
    clip_limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """Which steps are sampled, and of which parameters.

    Args:
        every_n_steps: Step numbers that it divides are sampled; 0 samples none.
        measures: What is measured then.
        budget: Under which sampling is thinned, None for none.
    """

    every_n_steps: int
    selection: "Selection"
    measures: "Measures"
    budget: "OverheadBudget | None" = None

    def wants(self, step: int) -> bool:
        """Whether a step is sampled without a budget: a function of its number alone, so that all ranks agree."""
        return FixedInterval(self.every_n_steps).wants(step)

    def schedule(self, name: str | None) -> SamplingSchedule:
        """Return which steps of one more watched optimizer are sampled."""
        if self.budget is None or not self.every_n_steps:
            return FixedInterval(self.every_n_steps)
        return self.budget.schedule(self.every_n_steps, name)
