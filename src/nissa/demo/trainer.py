"""Training loop of one environment: train the host, germinate seeds, and evaluate their gates."""

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nissa.demo import policy as rules
from nissa.demo.blueprints import BLUEPRINTS, build
from nissa.demo.data import CLASSES, Digits, Split, batches
from nissa.demo.graft import GRAFTING, Graft
from nissa.demo.network import SLOTS, Host, build_host, isolated_backward, set_rate
from nissa.demo.policy import GateDecision
from nissa.events import Stage
from nissa.seeds.stages import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from nissa.demo.recipe import Recipe
    from nissa.run.environment import Environment


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a host on the validation images; ``per_class`` maps each digit to its accuracy."""

    loss: float
    accuracy: float
    per_class: dict[int, float]


@dataclass(frozen=True)
class EpochResult:
    """Metrics of an epoch."""

    epoch: int
    loss: float
    accuracy: float
    train_accuracy: float
    gradient_health: float | None
    gradient_norm: float | None
    narrative: str


class Trainer:
    """Trains one host, germinates seeds in it, and decides by gates which seeds are kept.

    Args:
        env: Environment that records the telemetry.
        env_id: Number of the environment.
        digits: Training and validation data.
        recipe: Hyperparameters.
        choose: Returns the blueprint of the next seed; if None, the blueprints are used in turn.
    """

    def __init__(
        self,
        env: "Environment",
        *,
        env_id: int,
        digits: Digits,
        recipe: "Recipe",
        choose: "Callable[[], str] | None" = None,
    ) -> None:
        self.env_id = env_id
        self.grafts: list[Graft] = []
        self.history: list[EpochResult] = []
        self.recipe = recipe
        self._env, self._digits, self._policy = env, digits, recipe.policy
        self._generator = torch.Generator().manual_seed(recipe.seed)
        turns = islice(cycle(BLUEPRINTS), recipe.first_blueprint, None)
        self._choose = choose or turns.__next__
        self._last_graft_ended = 0
        self.host = build_host(channels=recipe.channels, seed=recipe.seed)
        self.optimizer = torch.optim.Adam(self.host.parameters(), lr=recipe.warmup_rate)
        env.watch(self.host, self.optimizer)

    @property
    def accuracies(self) -> list[float]:
        """Validation accuracy per epoch."""
        return [result.accuracy for result in self.history]

    def run_epoch(self, epoch: int) -> EpochResult:
        """Train and validate for one epoch, then apply the stage transitions of all seeds."""
        if epoch == self.recipe.warmup_epochs:
            set_rate(self.optimizer, self.host, self.recipe.host_rate)
        with self._env.epoch(epoch):
            train_accuracy = self._train()
            result = self._validate(epoch, train_accuracy)
            self.history.append(result)
            # Evaluate gates before germinating: a slot whose seed has just been culled is free again.
            for graft in self._living():
                self._review(graft, epoch)
            self._plant(epoch)
        return result

    def _train(self) -> float:
        correct = seen = 0
        batch_size = self.recipe.batch_size
        for images, labels in batches(self._digits.training, size=batch_size, generator=self._generator):
            correct += self._step(images, labels)
            seen += len(labels)
        return correct / seen

    def _step(self, images: "Tensor", labels: "Tensor") -> int:
        self.optimizer.zero_grad()
        scores = self.host(images)
        loss = F.cross_entropy(scores, labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        # The host's loss has no gradient for seeds in isolation, since their alpha is 0: compute it separately.
        for graft in self._in(Stage.TRAINING):
            isolated_backward(self.host, graft.slot, images, labels)
        # Before optimizer.step(), which completes the telemetry of this step.
        self._env.log_loss(loss)
        self.optimizer.step()
        return int((scores.argmax(1) == labels).sum())

    def _validate(self, epoch: int, train_accuracy: float) -> EpochResult:
        now = evaluate(self.host, self._digits.validation)
        self._measure_grafts(now.accuracy)
        snapshot = self._env.validate(
            loss=now.loss,
            accuracy=now.accuracy,
            per_class_accuracy=now.per_class,
            train_accuracy=train_accuracy,
        )
        health = snapshot.gradient_health
        return EpochResult(
            epoch=epoch,
            loss=now.loss,
            accuracy=now.accuracy,
            train_accuracy=train_accuracy,
            gradient_health=health.score if health else None,
            gradient_norm=health.global_norm if health else None,
            narrative=snapshot.narrative,
        )

    def _measure_grafts(self, accuracy: float) -> None:
        for graft in self._living():
            graft.epochs_in_stage += 1
            # In isolation the seed's alpha is 0: switch it on to measure its gain. Afterwards, switch it off instead.
            if graft.stage is Stage.TRAINING:
                graft.gains.append(self._accuracy_with({graft.slot: 1.0}) - accuracy)
            else:
                graft.gains.append(accuracy - self._accuracy_with({graft.slot: 0.0}))

    def _accuracy_with(self, alphas: "Mapping[str, float]") -> float:
        return evaluate(self.host, self._digits.validation, alphas).accuracy

    def _review(self, graft: Graft, epoch: int) -> None:
        if graft.stage is Stage.TRAINING and graft.epochs_in_stage >= self._policy.training_epochs:
            self._review_training(graft, epoch)
        elif graft.stage is Stage.BLENDING:
            self._review_blending(graft, epoch)
        elif graft.stage is Stage.PROBATIONARY and graft.epochs_in_stage >= self._policy.probation_epochs:
            self._review_probation(graft, epoch)

    def _review_training(self, graft: Graft, epoch: int) -> None:
        gate = rules.ready_to_blend(
            graft.gain, epochs=graft.epochs_in_stage, host_free=self._host_free(epoch), policy=self._policy
        )
        graft.log_gate(gate, epoch=epoch)
        verdict = rules.decide(gate, epochs=graft.epochs_in_stage, patience=self._policy.training_patience)
        if verdict is GateDecision.ADVANCE:
            graft.start_blending(accuracy=self._recent_accuracy(), epoch=epoch)
        elif verdict is GateDecision.CULL:
            graft.cull(gate, improvement=graft.gain, epoch=epoch)

    def _review_blending(self, graft: Graft, epoch: int) -> None:
        if graft.epochs_in_stage < self._policy.blending_epochs:
            graft.blend_further()
        elif graft.log_gate(rules.blended(graft.alpha, policy=self._policy), epoch=epoch).passed:
            graft.start_probation(epoch=epoch)

    def _review_probation(self, graft: Graft, epoch: int) -> None:
        improvement = self._improvement(graft)
        gate = rules.permanent(graft.gain, improvement, epochs=graft.epochs_in_stage, policy=self._policy)
        graft.log_gate(gate, epoch=epoch)
        verdict = rules.decide(gate, epochs=graft.epochs_in_stage, patience=self._policy.probation_patience)
        if verdict is GateDecision.HOLD:
            return
        self._last_graft_ended = epoch
        if verdict is GateDecision.ADVANCE:
            graft.fossilize(improvement=improvement, epoch=epoch)
        else:
            graft.cull(gate, improvement=improvement, epoch=epoch)

    def _plant(self, epoch: int) -> None:
        free = [slot for slot in SLOTS if self.host.slot(slot).seed is None]
        remaining = self.recipe.epochs - epoch - 1
        # Only the first seed waits until the host is stable. Later seeds train in isolation, and G2 waits instead.
        may = self.grafts or rules.has_stabilised(self.accuracies, self._policy)
        if free and may and rules.has_time(remaining, self._policy):
            self._germinate(free[0], self._choose(), epoch)

    def _germinate(self, slot: str, blueprint: str, epoch: int) -> None:
        number = len(self.grafts) + 1
        seed_id = f"env{self.env_id}_seed_{number}"
        module = build(blueprint, channels=self.host.channels, seed=self.recipe.seed + number)
        self.host.slot(slot).plant(module)
        graft = Graft(
            handle=self._env.germinate(seed_id, blueprint=blueprint, slot=slot, module=module),
            module=module,
            blueprint=blueprint,
            slot=slot,
            host=self.host,
            optimizer=self.optimizer,
            epoch=epoch,
            recipe=self.recipe,
        )
        graft.log_gate(rules.identified(seed_id, blueprint), epoch=epoch)
        graft.log_gate(rules.germinated(present=self.host.slot(slot).seed is module), epoch=epoch)
        graft.start_training(epoch=epoch)
        self.grafts.append(graft)

    def _host_free(self, epoch: int) -> bool:
        settled = epoch - self._last_graft_ended >= self._policy.settling_epochs
        return settled and not self._in(*GRAFTING)

    def _improvement(self, graft: Graft) -> float:
        return self._recent_accuracy() - (graft.accuracy_before or 0.0)

    def _recent_accuracy(self) -> float:
        return rules.mean(self.accuracies[-self._policy.window :])

    def _living(self) -> list[Graft]:
        return [graft for graft in self.grafts if graft.stage not in FINAL]

    def _in(self, *stages: Stage) -> list[Graft]:
        return [graft for graft in self.grafts if graft.stage in stages]


@torch.no_grad()
def evaluate(host: Host, split: Split, alphas: "Mapping[str, float] | None" = None) -> Evaluation:
    """Evaluate ``host`` on ``split``; ``alphas`` overrides the alpha of slots by name."""
    scores = host(split.images, alphas or {})
    hits = scores.argmax(1) == split.labels
    counts = torch.bincount(split.labels, minlength=CLASSES)
    right = torch.bincount(split.labels[hits], minlength=CLASSES)
    return Evaluation(
        loss=float(F.cross_entropy(scores, split.labels)),
        accuracy=float(hits.float().mean()),
        per_class={digit: float(r / n) for digit, (r, n) in enumerate(zip(right, counts, strict=True)) if n},
    )
