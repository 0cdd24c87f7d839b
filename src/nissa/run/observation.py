"""Functions of a run for the integrations, which observe a training that does not call its methods."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nissa.gradients.phases import PhaseTimer
    from nissa.run.environment import Environment
    from nissa.run.run import Run


def is_watched(run: "Run", optimizer: "torch.optim.Optimizer") -> bool:
    """Whether a run watches an optimizer, in any of its environments."""
    return run._runtime.watches.is_watched(optimizer)  # noqa: SLF001 - our own class


def phase_timer(owner: "Run | Environment") -> "PhaseTimer | None":
    """Return the timer of the step phases of an environment; None if they are not measured."""
    return owner._runtime.clock(owner.env_id).phases  # noqa: SLF001 - our own class


def record_warning(run: "Run", message: Warning | str, category: type[Warning], filename: str, lineno: int) -> None:
    """Record a warning of torch that was issued before the run began; the arguments are those of ``warnings.showwarning``."""
    capture = run._log_capture  # noqa: SLF001 - our own class
    if capture is not None:
        capture.record_warning(message, category, filename, lineno)


def log_backward_value(owner: "Run | Environment", value: "torch.Tensor", *, model: str | None = None) -> None:
    """Log the sum of the values that ``backward()`` was called on for the next step, where their scale is not known.

    It is exported as ``nissa.backward.value``. No rule compares it with other losses.

    Args:
        owner: Run or environment that watches the optimizer.
        value: Scalar; a device tensor is not waited for.
        model: Name of the watch that the value belongs to; by default the first watch of the environment.
    """
    runtime = owner._runtime  # noqa: SLF001 - our own class
    with runtime.stopwatch.own, runtime.error_boundary.guard("backward value"):
        runtime.clock(owner.env_id).log_backward(value, model)
