"""A training that uses everything that we offer in its loop, and all that it leaves behind.

The loop is written once and talks to a `Script`: bare, or a run. What it leaves behind is frozen into plain Python
values, so that -0.0 is not 0.0, NaN is NaN, and a memory layout is part of what is compared.
"""

import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer

from nissa import Run, Stage, ValidationMeter

EPOCHS, STEPS = 3, 4
GROWS, BREAKS = (1, 1), (2, 1)
"""Epoch and step at which the network grows, and at which a scaled loss is infinite."""
FORGETS = 1
"""Epoch in which nobody puts the network into evaluation mode for the validation."""

Make = Callable[[Iterable[Any]], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd with momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam foreach": lambda p: Adam(p, lr=0.01, foreach=True, amsgrad=True),
    "adam fused": lambda p: Adam(p, lr=0.01, fused=True),
    "adamw with a rate in a tensor": lambda p: AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "lbfgs": lambda p: LBFGS(p, lr=0.1, max_iter=3, history_size=4),
}
SCALED = {name: OPTIMIZERS[name] for name in ("sgd with momentum", "adam foreach", "adam fused")}


class Network(nn.Module):
    """Convolutions in a memory format, batch norm, dropout, a frozen layer, and a slot for a seed."""

    def __init__(self, layout: torch.memory_format) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1).to(memory_format=layout)
        self.norm = nn.BatchNorm2d(6)
        self.slot: nn.Module = nn.Identity()
        self.drop = nn.Dropout(0.3)
        self.frozen = nn.Linear(6, 6).requires_grad_(requires_grad=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.slot(self.norm(self.convolution(x)).relu())
        result: torch.Tensor = self.head(self.frozen(self.drop(hidden.mean((2, 3)))))
        return result


class Script:
    """What a training says to a run, or to nobody."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.seed: Any = None

    def watch(self, network: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None) -> None:
        if self.run is not None:
            self.run.watch(network, optimizer, scaler=scaler)

    def epoch(self, number: int) -> AbstractContextManager[None]:
        return nullcontext() if self.run is None else self.run.epoch(number)

    def log_loss(self, loss: torch.Tensor) -> None:
        if self.run is not None:
            self.run.log_loss(loss)

    def clip(self, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
        clip = torch.nn.utils.clip_grad_norm_ if self.run is None else self.run.clip_grad_norm_
        return clip(parameters, 0.5)

    def germinate(self, module: nn.Module) -> None:
        if self.run is not None:
            self.seed = self.run.germinate("seed-1", blueprint="conv", slot="r0c0", module=module)
            self.seed.advance(Stage.TRAINING)

    def blend(self) -> None:
        if self.seed is not None and self.seed.stage is Stage.TRAINING:
            self.seed.advance(Stage.BLENDING, alpha=0.5)

    def validate(self, network: nn.Module, inputs: torch.Tensor) -> None:
        logits = network(inputs)
        if self.run is None:
            return
        meter = ValidationMeter(["a", "b"])
        meter.update(logits, torch.tensor([0, 1]), logits.square().mean())
        self.run.validate(
            meter=meter,
            closure=lambda: network(inputs).square().mean(),
            accuracy=torch.tensor(0.5),
            per_class_accuracy={"a": 0.1, "b": 0.9},
        )
        self.run.brief(action="wait")
        self.run.features()
        if self.seed is not None:
            self.seed.features()


def frozen(value: Any) -> Any:
    """Return a value as what can be compared bit for bit."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return (value.dtype, tuple(value.shape), value.stride(), value.requires_grad, raw)
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(each) for each in value]
    return value.hex() if isinstance(value, float) else value


def process() -> dict[str, Any]:
    """What a process has once, and a library might change behind its user's back."""
    return {
        "torch's random numbers": frozen(torch.get_rng_state()),
        "numpy's random numbers": frozen(np.random.get_state()),  # noqa: NPY002 - the global state is the point
        "Python's random numbers": random.getstate(),
        "gradients are recorded": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "defaults": (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy's errors": np.geterr(),
    }


def train(script: Script, make: Make, *, scaled: bool) -> dict[str, Any]:
    """Train with all that chance can do; return everything that a training leaves behind, by what it is."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(7)
    # LBFGS takes its gradients flat, and refuses those that are not contiguous.
    network = Network(torch.contiguous_format if make is OPTIMIZERS["lbfgs"] else torch.channels_last)
    optimizer = make([parameter for parameter in network.parameters() if parameter.requires_grad])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3) if scaled else None
    script.watch(network, optimizer, scaler)
    found: dict[str, Any] = {}
    for epoch in range(EPOCHS):
        with script.epoch(epoch):
            for step in range(STEPS):
                if (epoch, step) == GROWS and not isinstance(optimizer, LBFGS):  # it has one group and no more
                    grow(script, network, optimizer)
                found |= Step(script, network, optimizer, scaler, (epoch, step)).take()
            network.train(epoch == FORGETS)
            with torch.no_grad():
                script.validate(network, torch.ones(2, 3, 4, 4))
            network.train()
            network.frozen.eval()  # a mode of its own, as frozen layers often have
            script.blend()
    found |= {f"parameter {name}": frozen(each) for name, each in network.named_parameters()}
    found |= {f"buffer {name}": frozen(each) for name, each in network.named_buffers()}
    found["optimizer"] = frozen(optimizer.state_dict())
    found["scaler"] = None if scaler is None else frozen(scaler.state_dict())
    return found | process()


def grow(script: Script, network: Network, optimizer: Optimizer) -> None:
    network.slot = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Dropout(0.1))
    optimizer.add_param_group({"params": list(network.slot.parameters())})
    script.germinate(network.slot)


class Step:
    """One step of the training, and what can be seen around it."""

    def __init__(
        self,
        script: Script,
        network: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler | None,
        place: tuple[int, int],
    ) -> None:
        self.script, self.network, self.optimizer, self.scaler, self.place = script, network, optimizer, scaler, place
        noise = float(np.random.normal()) * random.random()  # noqa: NPY002, S311 - the global state is the point
        self.inputs = (torch.randn(4, 3, 4, 4) + noise).to(memory_format=torch.channels_last)

    def gradients(self) -> dict[str, torch.Tensor]:
        named = self.network.named_parameters()
        return {name: parameter.grad for name, parameter in named if parameter.grad is not None}

    def loss(self) -> torch.Tensor:
        """Forward and backward over two micro-batches, of which the network's random numbers are a part."""
        self.optimizer.zero_grad()
        total = torch.zeros(())
        for part in torch.split(self.inputs, 2):
            loss: torch.Tensor = self.network(part).square().mean() / 2
            torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss * self.broken))
            total += loss.detach()
        self.script.log_loss(total)
        return total

    @property
    def broken(self) -> float:
        return float("inf") if self.place == BREAKS else 1.0

    def take(self) -> dict[str, Any]:
        if isinstance(self.optimizer, LBFGS):
            loss: Any = self.optimizer.step(self.loss)  # type: ignore[no-untyped-call]
            return self.seen({"loss": frozen(loss), "gradients": frozen(self.gradients())})
        loss = self.loss()
        norm = self.clipped()
        before, bits = self.gradients(), frozen(self.gradients())
        places = {name: (id(each), each.data_ptr(), each._version) for name, each in before.items()}
        self.step()
        after = self.gradients()
        kept = {name: (id(each), each.data_ptr()) == places[name][:2] for name, each in after.items()}
        written = {name: each._version - places[name][2] for name, each in after.items()}
        found = {"loss": frozen(loss), "norm": frozen(norm), "gradients": bits, "after": frozen(after)}
        return self.seen(found | {"the same objects": kept, "times written": written})

    def clipped(self) -> torch.Tensor:
        if self.scaler is not None and self.place[1] % 2:  # in the other steps a fused optimizer unscales by itself
            self.scaler.unscale_(self.optimizer)
        return self.script.clip(self.network.parameters())

    def step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def seen(self, found: dict[str, Any]) -> dict[str, Any]:
        found["modes"] = [module.training for module in self.network.modules()]
        return {f"{what} of step {self.place}": each for what, each in found.items()}
