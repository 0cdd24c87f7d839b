"""Values that the training loop logs for a step."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class PendingStepInputs:
    """Values that the training loop logged for the next step.

    Args:
        total: Sum of the logged losses; on their device if they are not on the host.
        losses: Number of logged losses.
        clip_norm: Norm of all gradients before clipping.
        clip_limit: Maximum norm of the clipping.
        backward: Sum of the values that ``backward()`` was called on, where their scale as a loss is not known.
        logged: Other values by their names in the row, see `nissa.gradients.logged_values`.
        late: Whether a loss belongs to the step before, whose row was sent too early.
    """

    total: "torch.Tensor | float" = 0.0
    losses: int = 0
    clip_norm: "torch.Tensor | float | None" = None
    clip_limit: float | None = None
    late: bool = False
    backward: "torch.Tensor | float | None" = None
    logged: "dict[str, torch.Tensor | float]" = field(default_factory=dict)

    @property
    def loss(self) -> "torch.Tensor | float | None":
        """Mean of the logged losses; None if there is none."""
        return None if self.losses == 0 else self.total if self.losses == 1 else self.total / self.losses

    def add(self, loss: "torch.Tensor | float") -> None:
        """Add a loss to the mean."""
        self.total = loss + self.total if self.losses else loss
        self.losses += 1

    def over(self, other: "PendingStepInputs") -> "PendingStepInputs":
        """Return these values, completed with those of another object."""
        clipping, loss = self if self.clip_limit is not None else other, self if self.losses else other
        backward = other.backward if self.backward is None else self.backward
        return PendingStepInputs(loss.total, loss.losses, clipping.clip_norm, clipping.clip_limit, loss.late, backward)
