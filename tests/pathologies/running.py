"""A training that tells a run what users tell it, and what was seen meanwhile."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import nissa
from nissa.backends.memory import MemoryBackend
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.hub.measurements import Measurement
from tests.pathologies.data import Data

Loss = Callable[[Tensor, Tensor], Tensor]
Optimizer = torch.optim.Optimizer

MOST_CLASSES = 10
"""Up to so many classes each has an accuracy of its own; nobody lists those of a vocabulary."""

_SILENT = {"OTEL_SDK_DISABLED": "true"}
_WHOLE: dict[str, Any] = {
    "console": {"enabled": False},
    # What is scored must not depend on how busy the machine is: no reading is dropped, and every one is waited for.
    "limits": {"readback_queue_size": 4096, "validation_wait_seconds": 60},
}

_PROBING: dict[str, Any] = {"enabled": True, "every_n_epochs": 1, "budget_milliseconds": 60_000}


@dataclass(kw_only=True)
class Training:
    """A training, and the places where something may be done to it.

    Args:
        optimizers: Stepped one after the other; the first is watched.
        schedule: Advanced after each step.
        clip: Largest norm of the gradients.
        accumulate: Batches whose gradients are added up for one step.
        meddle: Changes the batch of a step.
        before: Called between ``backward()`` and ``step()``, with the number of the step.
        after: Called after ``step()``, with the number of the step.
        forward: Called before the forward pass, with the number of the step.
        probed: Whether sharpness is measured, on the first examples, after each epoch.
    """

    network: nn.Module
    optimizer: Optimizer
    data: Data
    loss: Loss = cross_entropy
    epochs: int = 12
    batch: int = 64
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None
    clip: float | None = None
    accumulate: int = 1
    bf16: bool = False
    augment: Callable[[Tensor], Tensor] | None = None
    meddle: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    forward: Callable[[int], None] | None = None
    before: Callable[[int], None] | None = None
    after: Callable[[int], None] | None = None
    probed: bool = False


@dataclass(frozen=True)
class Sighting:
    """A red flag that was raised, and the step by which it was."""

    flag: str
    step: int
    sentence: str = ""


@dataclass
class Outcome:
    """What came of a training."""

    sightings: list[Sighting] = field(default_factory=list)
    snapshots: list[EpochSnapshot] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    steps: int = 0
    readings: list[Measurement] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """Validation losses; NaN where there is none."""
        return [float("nan") if each.validation_loss is None else each.validation_loss for each in self.snapshots]

    @property
    def accuracies(self) -> list[float]:
        """Validation accuracies; NaN where there is none."""
        known = (each.validation_accuracy for each in self.snapshots)
        return [float("nan") if each is None else each for each in known]


def train(make: Callable[[], Training], random_seed: int) -> Outcome:
    """Train on one thread and return what was seen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch.dict(os.environ, _SILENT), torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            return _Trainer(make()).train()
    finally:
        torch.set_num_threads(threads)


class _Trainer:
    def __init__(self, training: Training) -> None:
        self.it = training
        self.outcome = Outcome()
        self.memory = MemoryBackend()

    def train(self) -> Outcome:
        it, outcome = self.it, self.outcome
        settings: dict[str, Any] = _WHOLE | ({"sharpness": _PROBING} if it.probed else {})
        with nissa.start("diagnostic", backends=[self.memory], **settings) as run:
            run.watch(it.network, it.optimizer)
            for epoch in range(it.epochs):
                with run.epoch(epoch):
                    self._epoch(run)
                    outcome.ends.append(outcome.steps)
                    outcome.snapshots.append(self._validate(run))
            assert run.flush(60), "telemetry was not delivered"
        outcome.readings = self.memory.measurements
        outcome.sightings = self._sightings()
        return outcome

    def _epoch(self, run: nissa.Run) -> None:
        it = self.it
        it.network.train()
        batches = torch.split(torch.randperm(len(it.data.x)), it.batch)
        for index in range(0, len(batches), it.accumulate):
            self._step(run, batches[index : index + it.accumulate])

    def _step(self, run: nissa.Run, parts: tuple[Tensor, ...]) -> None:
        it, step = self.it, self.outcome.steps
        if it.forward is not None:
            it.forward(step)
        it.optimizer.zero_grad()
        losses = [self._backward(part, len(parts)) for part in parts]
        run.log_loss(torch.stack(losses).sum())
        if it.before is not None:
            it.before(step)
        if it.clip is not None:
            run.clip_grad_norm_(it.network.parameters(), it.clip)
        it.optimizer.step()
        if it.schedule is not None:
            it.schedule.step()
        if it.after is not None:
            it.after(step)
        self.outcome.steps += 1

    def _backward(self, part: Tensor, parts: int) -> Tensor:
        it = self.it
        x, y = it.data.x[part], it.data.y[part]
        if it.augment is not None:
            x = it.augment(x)
        if it.meddle is not None:
            x, y = it.meddle(self.outcome.steps, x, y)
        with torch.autocast("cpu", torch.bfloat16) if it.bf16 else nullcontext():
            output = it.network(x)
        loss = it.loss(output.float(), y) / parts
        torch.autograd.backward(loss)
        return loss.detach()

    def _validate(self, run: nissa.Run) -> EpochSnapshot:
        it, data = self.it, self.it.data
        it.network.eval()
        meter = nissa.ValidationMeter(max(2, data.classes))
        with torch.no_grad():
            output = it.network(data.x_val)
            loss = it.loss(output, data.y_val)
            if data.classes:
                meter.update(output, data.y_val, loss)
        closure = self._closure if it.probed else None
        if 0 < data.classes <= MOST_CLASSES:
            return run.validate(meter=meter, closure=closure)
        return run.validate(loss=loss, accuracy=meter.result().accuracy, closure=closure)

    def _closure(self) -> Tensor:
        it = self.it
        part = slice(0, it.batch)
        return it.loss(it.network(it.data.x[part]), it.data.y[part])

    def _sightings(self) -> list[Sighting]:
        found = []
        for event in self.memory.of_type("RED_FLAG_RAISED"):
            step = event.data.get("step")
            if step is None:
                assert event.epoch is not None, f"neither step nor epoch: {event}"
                step = self.outcome.ends[event.epoch] - 1
            found.append(Sighting(event.data["flag"], step, event.message))
        told = {each.flag for each in found}
        for snapshot, end in zip(self.outcome.snapshots, self.outcome.ends, strict=True):
            untold = set(snapshot.red_flags) - told
            assert not untold, f"flags in a snapshot, of which no event tells: {untold} at step {end}"
        return sorted(found, key=lambda each: each.step)
