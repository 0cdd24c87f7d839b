"""Metadata of a step that stays on the host while its numbers are copied, and the sampling plan of a watch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nissa.gradients.packing import Packing
from nissa.gradients.sampling import FixedInterval, SamplingSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nissa.events import SpanIds
    from nissa.gradients.capture import Measures, Sampled
    from nissa.gradients.replica_probe import ReplicaRow
    from nissa.gradients.rounds import Round
    from nissa.gradients.sampling import OverheadBudget
    from nissa.gradients.selection import Selection
    from nissa.hub.program_facts import ProgramFacts

LOSS, RATE, OVERFLOW, CLIP_NORM, BACKWARD = "loss", "learning_rate:", "found_inf", "clip_norm", "backward"
"""Names of the scalars that a step may carry; the index of the parameter group follows `RATE`."""

OVERHEAD, INTERVAL = "overhead", "interval"
"""Names of the scalars about the overhead of Nissa, carried by sampled steps."""

SKIPPED_CALLS, SKIPPED_SAMPLES = "skipped_calls:", "skipped_samples:"
"""Prefixes of the cumulative counts of skipped calls, see `nissa.gradients.skips.SkipCount`."""

SIGNAL: Final = "contract:"
"""Beginning of the names of scalars that are values for contracts."""

WINDOW: Final = 10
"""Number of steps over which overhead is measured if sampling is disabled."""


@dataclass(slots=True)
class DeliveryProgress:
    """Delivery progress of the rows under one name; only the worker thread writes it.

    An optimizer that replaces another one under the same name continues it, even while rows of the older one are queued.

    Args:
        steps: Number of the next step.
        samples: Number of the next sample.
        skipped: Number of skipped steps that were recorded.
        calls: Number of delivered calls of ``step()``, skipped ones and those before a resumption included.
    """

    steps: int = 0
    samples: int = 0
    skipped: int = 0
    calls: int = 0

    def resume(self, steps: int) -> None:
        """Continue after a number of steps."""
        self.steps = self.calls = steps


@dataclass(slots=True)
class WatchState:
    """State of a watch that its queued rows refer to.

    Args:
        closed: Whether the watch is closed, so that its rows no longer replace the newest statistics of its name.
    """

    closed: bool = False


# Not frozen: freezing would take a third of the time of a step that is not sampled.
@dataclass(slots=True, kw_only=True)
class StepMetadata:
    """Metadata of a step; it stays on the host while the numbers of the step are copied. Constant once it is queued.

    Args:
        step: Number of earlier calls of ``step()`` under the name of this watch.
        primary: Whether this optimizer is the first one of its environment, whose steps count as the steps of
            the environment.
        sampled: Row metadata of the gradient statistics; None if the step was not sampled.
        packing: Layout that unpacks the numbers.
        known: Scalars that were on the host already.
        skipped: Whether the optimizer was not called because gradients were not finite.
        unbegun: Number of such steps up to and including this row; they do not count as calls.
        samples: Number of earlier sampled calls.
        delivered: Delivery progress of the name.
        state: State of the watch.
        round: Round of the optimizers of one model, None if the model has only one.
        phases: Seconds of each phase of the step that was observed.
        clip_limit: Maximum norm that gradients were clipped to; None without clipping.
        program: Facts for contracts; None at steps at which none were collected.
        replicas: What this rank reports to its replicas; None at steps at which it reports nothing.
    """

    env_id: str | None
    model_name: str | None
    step: int
    primary: bool
    time_unix_nano: int
    duration: float | None
    epoch_ids: "SpanIds | None"
    known: "Mapping[str, float]"
    delivered: DeliveryProgress
    sampled: "Sampled | None" = None
    packing: Packing = field(default_factory=Packing)
    state: WatchState = field(default_factory=WatchState)
    skipped: bool = False
    unbegun: int = 0
    samples: int = 0
    clip_limit: float | None = None
    round: "Round | None" = None
    phases: "Mapping[str, float]" = field(default_factory=dict)
    program: "ProgramFacts | None" = None
    replicas: "ReplicaRow | None" = None


@dataclass(frozen=True, slots=True)
class LoggedMetadata:
    """Metadata of values that were logged where no step carried them, for example after the last step of an epoch.

    Args:
        time_unix_nano: Time of the newest call.
        packing: Layout that unpacks the numbers.
        known: Values that were on the host already.
    """

    env_id: str | None
    time_unix_nano: int
    packing: "Packing"
    known: "Mapping[str, float]"


RowMetadata = StepMetadata | LoggedMetadata
"""Metadata of any row that is read back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """Sampled steps and parameters of a watch.

    Args:
        every_n_steps: Its multiples are sampled; 0 disables sampling.
        measures: Measurements of a sampled step.
        budget: Overhead budget that thins sampling; None for a fixed interval.
    """

    every_n_steps: int
    selection: "Selection"
    measures: "Measures"
    budget: "OverheadBudget | None" = None

    def wants(self, step: int) -> bool:
        """Whether a step is sampled without a budget; depends on its number alone, so that all ranks agree."""
        return FixedInterval(self.every_n_steps).wants(step)

    def schedule(self, name: str | None, first: int = 0) -> SamplingSchedule:
        """Return the sampling schedule of one more watched optimizer, whose first step has the number ``first``."""
        if self.budget is None or not self.every_n_steps:
            return FixedInterval(self.every_n_steps)
        return self.budget.schedule(self.every_n_steps, name, first)
