"""Seed in a host: its measurements and its stage transitions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nissa.demo.network import join, leave, set_rate
from nissa.demo.policy import alpha_after, cull_reason, mean
from nissa.events import Stage

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from nissa.demo.network import Host
    from nissa.demo.recipe import Recipe
    from nissa.events import GateResult
    from nissa.seeds.seed import Seed

GRAFTING = frozenset({Stage.BLENDING, Stage.PROBATIONARY})
"""Stages in which a seed affects the host's output and is not yet fossilized or culled."""


@dataclass(frozen=True)
class GateRecord:
    """Result of a gate, with the epoch and stage in which it was evaluated."""

    epoch: int
    stage: str
    result: "GateResult"


@dataclass(kw_only=True)
class Graft:
    """Seed with its module, its slot, and the measurements that its gates use.

    Args:
        handle: Seed object of the run, for telemetry.
        module: Module that the seed inserts.
        host: Host network.
        optimizer: Optimizer of the host and the seed.
        epoch: Epoch of germination.
    """

    handle: "Seed"
    module: "nn.Module"
    blueprint: str
    slot: str
    host: "Host"
    optimizer: "Optimizer"
    epoch: int
    recipe: "Recipe"
    epochs_in_stage: int = 0
    gains: list[float] = field(default_factory=list)
    gates: list[GateRecord] = field(default_factory=list)
    stage_epochs: dict[str, int] = field(default_factory=dict)
    accuracy_before: float | None = None
    improvement: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Record the epoch of the first stage."""
        self.stage_epochs[self.stage.label] = self.epoch

    @property
    def stage(self) -> Stage:
        """Current stage of the seed."""
        return self.handle.stage

    @property
    def alpha(self) -> float:
        """Blending weight of the seed; 0 after it was culled."""
        return self.host.slot(self.slot).alpha if self.stage is not Stage.CULLED else 0.0

    @property
    def gain(self) -> float:
        """Accuracy with the seed minus accuracy without it, averaged over the latest measurements of this stage."""
        return mean(self.gains[-self.recipe.policy.window :])

    @property
    def change(self) -> float | None:
        """Change of accuracy due to the seed: the final value, else the current gain, else None."""
        if self.improvement is not None:
            return self.improvement
        return self.gain if self.gains else None

    def log_gate(self, gate: "GateResult", *, epoch: int) -> "GateResult":
        """Record the result of a gate, and return it."""
        self.handle.gate(gate)
        self.gates.append(GateRecord(epoch, self.stage.label, gate))
        return gate

    def start_training(self, *, epoch: int) -> None:
        """Add the seed to the optimizer and start its training in isolation."""
        join(self.optimizer, self.module, learning_rate=self.recipe.isolation_rate)
        self._enter(Stage.TRAINING, epoch=epoch)

    def start_blending(self, *, accuracy: float, epoch: int) -> None:
        """Start blending the seed into the host.

        Args:
            accuracy: Accuracy of the host without the seed, the reference for its improvement.
            epoch: Current epoch.
        """
        self.accuracy_before = accuracy
        set_rate(self.optimizer, self.module, self.recipe.blending_rate)
        self._enter(Stage.BLENDING, epoch=epoch, alpha=alpha_after(1, self.recipe.policy))

    def blend_further(self) -> None:
        """Raise alpha by one step."""
        alpha = alpha_after(self.epochs_in_stage + 1, self.recipe.policy)
        self.host.slot(self.slot).alpha = alpha
        self.handle.set_alpha(alpha)

    def start_probation(self, *, epoch: int) -> None:
        """Start the probation of the fully blended seed."""
        self._enter(Stage.PROBATIONARY, epoch=epoch, alpha=self.alpha)

    def fossilize(self, *, improvement: float, epoch: int) -> None:
        """Make the seed a permanent part of the host."""
        self.improvement = improvement
        set_rate(self.optimizer, self.module, self.recipe.host_rate)
        self.handle.fossilize(improvement=improvement)
        self.stage_epochs[self.stage.label] = epoch

    def cull(self, gate: "GateResult", *, improvement: float, epoch: int) -> None:
        """Remove the seed from host and optimizer; ``gate`` is the failed gate, the source of the reason."""
        self.improvement, self.reason = improvement, cull_reason(gate)
        leave(self.optimizer, self.module)
        self.host.slot(self.slot).clear()
        self.handle.cull(reason=self.reason, improvement=improvement)
        self.stage_epochs[self.stage.label] = epoch

    def _enter(self, stage: Stage, *, epoch: int, alpha: float = 0.0) -> None:
        self.handle.advance(stage, alpha=alpha)
        self.host.slot(self.slot).alpha = alpha
        self.stage_epochs[stage.label] = epoch
        self.epochs_in_stage = 0
        self.gains.clear()
