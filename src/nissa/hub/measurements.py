"""Measurements for the backends: frozen values on the host, each with its own timestamp.

Measurements are separate from events because they are numerous. The oldest are dropped when a queue is full, and
backends opt in with a ``record`` method.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nissa.frozen import quick_init

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from nissa.events import SpanIds
    from nissa.hub.program_facts import ProgramFacts
    from nissa.kernels.moments import Moments


@dataclass(frozen=True, slots=True)
class GradientHealth:
    """Health of the gradients of one step.

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


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class StepMeasured:
    """One completed optimizer step.

    Args:
        model_name: Name of its watch, None if the watch has no name.
        primary: Whether it counts as a step of the environment.
        step: Index among the steps under the watch's name, from 0.
        time_unix_nano: Time when ``optimizer.step()`` returned.
        duration: Seconds since the previous step returned; None for the first step, that of an epoch, and after a validation.
        loss: Value passed to ``log_loss`` for this step, None if it was not called. May be NaN or infinite.
        learning_rate: Learning rate of the first parameter group.
        learning_rates: Learning rate of each parameter group, None for a group that has none.
        sampled: Whether its gradients were measured.
        clip_norm: L2 norm of all gradients before clipping; None if unknown.
        clip_factor: Factor by which clipping multiplied the gradients, at most 1; None if unknown.
        overhead: Time spent on telemetry since the last sampled step, as a fraction of the elapsed time. Set on sampled
            steps.
        sampling_interval: Steps from one sampled step to the next. Set on sampled steps and when it changes.
        epoch_ids: Identity of the epoch span that the step belongs to.
        missed: Number of undelivered steps of this watch since the previously delivered step, or since the start of the
            watch for the first delivered step.
        phases: Seconds of host time of each phase of the step that was observed: ``data``, ``forward``, ``backward`` and
            ``optimizer``. Empty if the duration is None.
        backward_value: Sum of the values that ``backward()`` was called on for this step; None where the loss is known. Its
            scale is not known, so that no rule compares it.
        program: Facts for contracts; None at steps at which none were collected.
        signals: Values for contracts by name, with those facts.
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
    learning_rates: tuple[float | None, ...] = ()
    phases: "Mapping[str, float]" = field(default_factory=dict)
    backward_value: float | None = None
    program: "ProgramFacts | None" = None
    signals: "Mapping[str, float]" = field(default_factory=dict)


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """Steps that loss scaling skipped because gradients were not finite.

    Args:
        time_unix_nano: Time when the last of them was due, or when the next completed step returned.
        count: Number of skipped steps; more than one if earlier measurements of skipped steps were dropped.
        step: Number of completed steps of the watch before them.
    """

    env_id: str | None
    model_name: str | None
    time_unix_nano: int
    count: int = 1
    step: int = 0


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientsMeasured:
    """Gradient statistics of one sampled step.

    Args:
        names: Stream name per row of ``moments``: a parameter, or the block that aggregates its parameters.
        moments: Statistics per row.
        lag: Seconds from the step until its statistics were on the host.
        shown: Indices of the rows that are exported with this step, None for all; ``moments`` has all rows.
        weight_norms: L2 norm of the weights per row before the step, shape ``(rows,)``; None if not measured.
        update_ratios: L2 norm of the weight change of the step divided by that norm, shape ``(rows,)``; NaN where the
            norm is 0; None if not measured.
        idle: Parameters that require a gradient and had none; reported only if no parameter is sharded.
        seed_ratios: Root mean square gradient of a seed divided by that of its host, over finite elements, by slot.
        missed: Number of undelivered sampled steps of this watch since the previously delivered one, or since the start
            of the watch for the first delivered one.
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
class WholeModelMeasured:
    """Gradients of a whole model whose parameters are divided among several optimizers, in one sampled round of these.

    Args:
        model_name: Name of the model, None if it has none; its optimizers have other names.
        step: Step of the optimizer whose sample completed the round.
        health: Health of all layers, with the norm of all gradients.
    """

    env_id: str | None
    model_name: str | None
    step: int
    time_unix_nano: int
    health: GradientHealth
    epoch_ids: "SpanIds | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationMeasured:
    """Inputs and diagnosis of one ``validate()`` call.

    Args:
        started: Time when the preceding work (usually the last step) ended, nanoseconds since the Unix epoch.
        red_flags: State of each red flag that could be evaluated: True if it is raised.
        sharpness: Measured sharpness by method.
        stability_margin: Learning rate divided by the critical learning rate, None if not measured.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasCompared:
    """Comparison of the weights, or of the data, of ranks that should have equal weights, at one step.

    Args:
        step: Number of completed steps.
        ranks: Ranks that were compared, ascending.
        outcome: ``equal``, ``different``, ``explained``, ``data``, ``timed``, ``incomplete`` or ``failed``; see
            `nissa.distributed.replica_reports.Comparison`.
        leads: Whether this rank exports the numbers of all.
        skew: Seconds between the first and the last rank at the step; None if not known.
        differing: Ranks in the minority; all ranks without a majority.
        layers: Parameters that differ.
        cause: Pattern of the differences; None unless explained.
        equal_at: Newest step with equal weights; None if there was none.
        presumed: Whether only equal weights at first let the ranks count as replicas.
        evidence: Numbers that the cause rests on.
        same_data: Groups of ranks that read the same batches; None if not judged.
        same_steps: Steps at which they did.
    """

    env_id: str | None
    model_name: str | None
    step: int
    time_unix_nano: int
    ranks: tuple[int, ...]
    outcome: str
    leads: bool
    skew: float | None = None
    differing: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
    cause: str | None = None
    equal_at: int | None = None
    presumed: bool = False
    evidence: tuple[str, ...] = ()
    same_data: tuple[tuple[int, ...], ...] | None = None
    same_steps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedMeasured:
    """Values that the training loop logged with ``log()`` and ``log_items()``.

    Args:
        time_unix_nano: Time of the step that carried them; if there was none, of the newest call.
        scalars: Mean of the values logged since the previous step, by name. May be NaN or infinite.
        items: Processed items since the previous measurement, by kind.
    """

    env_id: str | None
    time_unix_nano: int
    scalars: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisMeasured:
    """Diagnosis without a validation: of ``diagnose()``, or of a loop without epochs after every n-th step.

    Args:
        epoch: The open or last epoch; None without one.
        step: Newest step whose values are on the host; None before the first one.
        train_loss: Mean of the losses of the epoch; without epochs, of the newest losses.
        red_flags: State of each red flag that was judged so far: True if it is raised.
    """

    env_id: str | None
    epoch: int | None
    step: int | None
    time_unix_nano: int
    train_loss: float | None
    narrative: str
    red_flags: dict[str, bool] = field(default_factory=dict)
    epoch_ids: "SpanIds | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMeasured:
    """Progress of a loop without epochs, for a line on the console.

    Args:
        step: The newest step.
        loss: Newest logged loss; None if none was logged.
        steps_per_second: Rate since the previous line of the environment; None at its first step.
        red_flags: Names of the raised red flags, worst first.
    """

    env_id: str | None
    step: int
    time_unix_nano: int
    loss: float | None = None
    steps_per_second: float | None = None
    red_flags: tuple[str, ...] = ()


Measurement = (
    StepMeasured
    | StepSkipped
    | GradientsMeasured
    | WholeModelMeasured
    | ValidationMeasured
    | LoggedMeasured
    | DiagnosisMeasured
    | ReplicasCompared
)
