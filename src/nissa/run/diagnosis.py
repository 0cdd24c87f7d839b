"""Diagnosis of an environment from what its steps have measured, without a validation."""

from typing import TYPE_CHECKING, Any

from nissa.diagnostics.layers import layers_of, medians
from nissa.diagnostics.observations import Observations
from nissa.hub.measurements import DiagnosisMeasured

if TYPE_CHECKING:
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.events import SpanIds
    from nissa.run.runtime import Runtime


def diagnose(runtime: "Runtime", env_id: str | None, epoch: int | None, *, at: int, arrived: bool) -> "EpochSnapshot":
    """Make a snapshot of the present state, and record its narrative. Callable on any thread; never waits.

    Args:
        runtime: Components of the run.
        env_id: Environment.
        epoch: Number of the open or last epoch.
        at: Time of the diagnosis, nanoseconds since the Unix epoch.
        arrived: Whether the statistics of all steps are on the host.
    """
    ids = runtime.clock(env_id).epoch_ids
    observations = Observations(
        epoch=epoch,
        env_id=env_id,
        time_unix_nano=at,
        seeds=runtime.unreported(env_id),
        incomplete=("train_loss",) if lacks_losses(runtime, env_id, ids, arrived=arrived) else (),
        **from_steps(runtime, env_id, ids),
    )
    diagnosis = runtime.tracker(env_id).describe(observations)
    snapshot = diagnosis.snapshot
    runtime.hub.record(
        DiagnosisMeasured(
            env_id=env_id,
            epoch=epoch,
            step=snapshot.step,
            time_unix_nano=at,
            train_loss=snapshot.train_loss,
            narrative=snapshot.narrative,
            red_flags=diagnosis.flags,
            epoch_ids=ids,
        )
    )
    return snapshot


def from_steps(runtime: "Runtime", env_id: str | None, epoch: "SpanIds | None") -> dict[str, Any]:
    """Return the observations that come from watched steps, as far as they are on the host."""
    latest, gradients = runtime.step_processor.latest(env_id), runtime.config.gradients
    losses = latest.losses(epoch)
    quantiles = dict(zip(gradients.percentiles, gradients.quantiles, strict=True))
    layers = layers_of(list(latest.by_model.values()), quantiles)
    return {
        "step": latest.step,
        "learning_rate": latest.learning_rate,
        "train_loss": losses.mean if losses else None,
        "loss_noise": losses.noise if losses else None,
        "gradient_health": latest.health(),
        "gradient_stats": layers,
        "gradient_percentiles": medians(layers),
        "seed_ratios": latest.ratios(),
    }


def lacks_losses(runtime: "Runtime", env_id: str | None, epoch: "SpanIds | None", *, arrived: bool) -> bool:
    """Whether steps that the mean training loss covers were dropped, or have not arrived yet."""
    losses = runtime.step_processor.latest(env_id).losses(epoch)
    return not arrived or (losses is not None and losses.missed > 0)
