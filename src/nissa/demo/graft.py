"""One seed in one host: what was measured of it, and each step of its life."""

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
"""Stages in which a seed has a say in what the host answers, and its fate is open."""


@dataclass(frozen=True)
class GateRecord:
    """A gate's result, and when it was asked."""

    epoch: int
    stage: str
    result: "GateResult"


@dataclass(kw_only=True)
class Graft:
    """A seed, its module in its slot, and the numbers by which it is judged.

    Args:
        handle: The seed as the run knows it.
        module: What it computes.
        host: Where it grows.
        optimizer: What trains both.
        epoch: The epoch in which it germinated.
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
        """Note the first stage."""
        self.stage_epochs[self.stage.label] = self.epoch

    @property
    def stage(self) -> Stage:
        """Where the seed is in its life."""
        return self.handle.stage

    @property
    def alpha(self) -> float:
        """How far it is blended in; a seed that is gone is not."""
        return self.host.slot(self.slot).alpha if self.stage is not Stage.CULLED else 0.0

    @property
    def gain(self) -> float:
        """What switching the seed on or off changes now, averaged over the latest measurements of this stage."""
        return mean(self.gains[-self.recipe.policy.window :])

    @property
    def change(self) -> float | None:
        """The change of accuracy that the seed is worth: the final one, else the latest measured, else None."""
        if self.improvement is not None:
            return self.improvement
        return self.gain if self.gains else None

    def ask(self, gate: "GateResult", *, epoch: int) -> "GateResult":
        """Record what a gate decided."""
        self.handle.gate(gate)
        self.gates.append(GateRecord(epoch, self.stage.label, gate))
        return gate

    def start_training(self, *, epoch: int) -> None:
        """Begin to learn in isolation."""
        join(self.optimizer, self.module, learning_rate=self.recipe.isolation_rate)
        self._enter(Stage.TRAINING, epoch=epoch)

    def start_blending(self, *, accuracy: float, epoch: int) -> None:
        """Begin to take part in the host, which has reached ``accuracy`` without it."""
        self.accuracy_before = accuracy
        set_rate(self.optimizer, self.module, self.recipe.blending_rate)
        self._enter(Stage.BLENDING, epoch=epoch, alpha=alpha_after(1, self.recipe.policy))

    def blend_further(self) -> None:
        """Raise alpha by one step."""
        alpha = alpha_after(self.epochs_in_stage + 1, self.recipe.policy)
        self.host.slot(self.slot).alpha = alpha
        self.handle.set_alpha(alpha)

    def start_probation(self, *, epoch: int) -> None:
        """Stay fully blended under observation."""
        self._enter(Stage.PROBATIONARY, epoch=epoch, alpha=self.alpha)

    def fossilize(self, *, improvement: float, epoch: int) -> None:
        """Stay for good."""
        self.improvement = improvement
        set_rate(self.optimizer, self.module, self.recipe.host_rate)
        self.handle.fossilize(improvement=improvement)
        self.stage_epochs[self.stage.label] = epoch

    def cull(self, gate: "GateResult", *, improvement: float, epoch: int) -> None:
        """Leave the host and the optimizer, because of what ``gate`` found."""
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
