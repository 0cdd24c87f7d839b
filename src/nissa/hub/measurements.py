"""Per-step numbers on their way to the backends: frozen, host-side, and carrying their own time.

They are no events: there are many of them, the oldest give way when a queue is full, and backends opt in.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nissa.events import SpanIds
    from nissa.kernels.moments import Moments


@dataclass(frozen=True, slots=True)
class GradientHealth:
    """How healthy one step's gradients were.

    ``score = 1 - 0.5 * vanishing_layers/layers - 0.8 * exploding_layers/layers``, at least 0, and 0 when any element is
    not finite. A layer counts as vanishing when more than half of its elements are below the vanishing threshold, and
    as exploding when more than one in a hundred is above the exploding threshold.

    Args:
        score: 0 (broken) to 1 (healthy); None when no layer had a gradient.
        global_norm: L2 norm over all finite elements of all layers; None when no layer had a gradient.
    """

    score: float | None = None
    global_norm: float | None = None
    layers: int = 0
    vanishing: tuple[str, ...] = ()
    exploding: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMeasured:
    """One optimizer step that happened.

    Args:
        model_name: The watch it belongs to, None where there is only one.
        primary: Whether it counts as a step of the environment.
        step: Count of the optimizer's steps, from 0.
        time_unix_nano: When ``optimizer.step()`` returned.
        duration: Seconds since the previous step returned, within the epoch; None for an epoch's first step.
        loss: Value given to ``log_loss`` for this step; None where none was. May be NaN or infinite.
        learning_rate: Of the first parameter group.
        sampled: Whether its gradients were measured.
        clip_norm: L2 norm of all gradients before they were clipped; None where it is not known.
        clip_factor: What they were multiplied with, at most 1; None where it is not known.
        overhead: What watching took since the last sampled step, as a fraction of the time since; told with sampled steps.
        sampling_interval: Steps from one sampled step to the next; told with sampled steps, and where it changes.
        epoch_ids: Identity of the epoch span the step belongs to.
        missed: Steps of this watch that happened before this one and were never delivered, since the one that was
            delivered last; of the first that is delivered, since the watch began.
    """

    env_id: str | None
    step: int
    time_unix_nano: int
    duration: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    sampled: bool = False
    epoch_ids: "SpanIds | None" = None
    model_name: str | None = None
    primary: bool = True
    clip_norm: float | None = None
    clip_factor: float | None = None
    overhead: float | None = None
    sampling_interval: float | None = None
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """Steps that were due and did not happen, since loss scaling found gradients that were not finite.

    Args:
        time_unix_nano: When the last of them was due, or the first step after them returned.
        count: How many; more than one where measurements of skipped steps were dropped before this one.
    """

    env_id: str | None
    model_name: str | None
    time_unix_nano: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientsMeasured:
    """The gradients of one sampled step.

    Args:
        names: A stream name per row of ``moments``: a parameter, or the block that its parameters were folded into.
        moments: Statistics per row.
        lag: Seconds from the step to its statistics being on the host.
        shown: Rows that are exported with this step, None for all; `moments` has all.
        weight_norms: L2 norm per row before the step, shape ``(rows,)``; None where not measured.
        update_ratios: L2 norm of the step's change over that norm, NaN where the norm is 0; None where not measured.
        idle: Parameters that require a gradient and had none, where none of them is sharded.
        seed_ratios: By slot, how large the gradients of a seed are beside those of its host: the ratio of their root
            mean squares over finite elements.
        missed: Sampled steps of this watch whose gradients were never delivered, since the ones that were delivered
            last; of the first that are delivered, since the watch began.
    """

    env_id: str | None
    model_name: str | None
    step: int
    time_unix_nano: int
    names: tuple[str, ...]
    moments: "Moments"
    health: GradientHealth
    lag: float
    epoch_ids: "SpanIds | None" = None
    shown: "NDArray[np.intp] | None" = None
    weight_norms: "NDArray[np.float64] | None" = None
    update_ratios: "NDArray[np.float64] | None" = None
    idle: tuple[str, ...] = ()
    seed_ratios: dict[str, float] = field(default_factory=dict)
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationMeasured:
    """What one ``validate()`` was told and concluded, for backends that show it.

    Args:
        started: When the work before it (usually the last step) ended, nanoseconds.
        red_flags: Each flag that could be judged with whether it is raised now.
        sharpness: By method, where it was measured.
        stability_margin: Learning rate over the critical one, None where not measured.
    """

    env_id: str | None
    epoch: int | None
    started: int
    time_unix_nano: int
    loss: float | None
    accuracy: float | None
    train_loss: float | None
    train_accuracy: float | None
    narrative: str
    per_class_accuracy: dict[str, float] = field(default_factory=dict)
    red_flags: dict[str, bool] = field(default_factory=dict)
    sharpness: dict[str, float] = field(default_factory=dict)
    stability_margin: float | None = None
    epoch_ids: "SpanIds | None" = None


Measurement = StepMeasured | StepSkipped | GradientsMeasured | ValidationMeasured
