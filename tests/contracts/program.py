"""A training program as users write it, run through ``nissa.start()``, and the flags that it raises."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import nissa
from nissa.backends.memory import MemoryBackend
from nissa.events import TelemetryEvent
from tests.pathologies.data import Data

SETTINGS: dict[str, Any] = {
    "console__enabled": False,
    # No reading is dropped, however busy the machine is.
    "limits__readback_queue_size": 4096,
    "limits__validation_wait_seconds": 60,
}


@dataclass(kw_only=True)
class Program:
    """A program.

    Args:
        watched: Optimizers that are watched, by default all.
        others: Optimizers beside the first.
        batch: Examples of a batch.
        batches: Returns the batch of a step; by default random examples.
        zero: When gradients are cleared: ``before`` the backward pass, ``in place`` before it, after it (``between``), or
            ``never``.
        begin: Called before the forward pass with the number of the step; likewise ``before`` and ``after`` the step.
        losses: Computes the loss of a step instead of model and loss.
        validate: Mode of the validation after each epoch: ``eval``, ``train``, ``stay`` (no mode is set again) or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: Data
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    others: Sequence[torch.optim.Optimizer] = ()
    watched: Sequence[torch.optim.Optimizer] | None = None
    steps: int = 60
    epochs: int = 3
    batch: int = 32
    batches: Callable[[int], tuple[Tensor, Tensor]] | None = None
    zero: str = "before"
    accumulate: int = 1
    scaler: torch.amp.GradScaler | None = None
    clip: float | None = None
    begin: Callable[[int], None] | None = None
    before: Callable[[int], None] | None = None
    after: Callable[[int], None] | None = None
    losses: Callable[[int, Tensor, Tensor], Tensor] | None = None
    validate: str | None = "eval"
    train_mode: bool = True
    profile: str = "standard"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Events of the findings of a run, and the flags that were up at its end."""

    raised: list[TelemetryEvent]
    up: frozenset[str]

    @property
    def flags(self) -> set[str]:
        """Names of the flags that were raised."""
        return {event.data["flag"] for event in self.raised}

    def first(self, flag: str) -> TelemetryEvent:
        """Return the event that raised a flag first."""
        return next(event for event in self.raised if event.data["flag"] == flag)


def run(make: Callable[[], Program], random_seed: int = 0) -> Outcome:
    """Run a program on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch.dict(os.environ, {"OTEL_SDK_DISABLED": "true"}), torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            return _run(make())
    finally:
        torch.set_num_threads(threads)


def _run(program: Program) -> Outcome:
    memory = MemoryBackend()
    everything = (program.optimizer, *program.others)
    watched = everything if program.watched is None else tuple(program.watched)
    with nissa.start(program.profile, backends=[memory], **SETTINGS, **program.settings) as run_:
        optimizers: Any = watched[0] if len(watched) == 1 else list(watched)
        run_.watch(program.model, optimizers, scaler=program.scaler)
        if program.train_mode:
            program.model.train()
        step = 0
        for epoch in range(program.epochs):
            with run_.epoch(epoch):
                for _ in range(program.steps // program.epochs):
                    _step(run_, program, everything, step)
                    step += 1
                _validate(run_, program)
        assert run_.flush(60), "telemetry was not delivered"
        up = frozenset(name for name, raised in run_.tracker.rules.flags.items() if raised)
    return Outcome(memory.of_type("RED_FLAG_RAISED"), up)


def _step(run_: nissa.Run, program: Program, everything: Sequence[torch.optim.Optimizer], step: int) -> None:
    _call(program.begin, step)
    for optimizer in everything:
        if program.zero in {"before", "in place"}:
            optimizer.zero_grad(set_to_none=program.zero == "before")
    for _ in range(program.accumulate):
        _backward(run_, program, step)
    _call(program.before, step)
    if program.clip is not None:
        run_.clip_grad_norm_(program.model.parameters(), program.clip)
    for optimizer in everything:
        if program.zero == "between":
            optimizer.zero_grad()
        if program.scaler is None:
            optimizer.step()
        else:
            program.scaler.step(optimizer)
    if program.scaler is not None:
        program.scaler.update()
    _call(program.after, step)


def _call(function: Callable[[int], None] | None, step: int) -> None:
    if function is not None:
        function(step)


def _backward(run_: nissa.Run, program: Program, step: int) -> None:
    x, y = _batch(program) if program.batches is None else program.batches(step)
    loss = program.loss(program.model(x), y) if program.losses is None else program.losses(step, x, y)
    loss = loss / program.accumulate
    run_.log_loss(loss, scale=program.accumulate)
    scaled = loss if program.scaler is None else program.scaler.scale(loss)
    if scaled.requires_grad:
        torch.autograd.backward(scaled)


def _batch(program: Program) -> tuple[Tensor, Tensor]:
    part = torch.randint(len(program.data.x), (program.batch,))
    return program.data.x[part], program.data.y[part]


def _validate(run_: nissa.Run, program: Program) -> None:
    if program.validate is None:
        return
    model = program.model
    model.train(program.validate == "train")
    with torch.no_grad():
        loss = program.loss(model(program.data.x_val), program.data.y_val)
    if program.validate != "stay":
        model.train(program.train_mode)
    run_.validate(loss=loss)
