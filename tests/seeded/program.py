"""Two runs in which everything happens that telemetry has a name for, the same to the last digit each time.

The first run ends while two seeds are alive; the second resumes one of them. Time is a clock that only this program
advances, arithmetic uses one thread, and every random number is seeded. The program uses public names only, so that it
runs unchanged before and after a change of the internals.
"""

import json
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import nissa
from nissa import Environment, GateResult, Run, Seed, Stage, TelemetryEvent
from nissa.backends.memory import MemoryBackend

BEGIN: Final = 1_700_000_000_000_000_000
"""Where the clock begins, nanoseconds since the Unix epoch."""

MILLISECOND: Final = 1_000_000
WAIT: Final = 120.0
"""Seconds that a flush may take: nothing here depends on how busy the machine is."""

EPOCHS: Final = 12
STEPS: Final = 4
LOSSES: Final = (2.0, 1.6, 1.3, 1.1, 1.1, 1.101, 1.1, 1.1, 0.7, 0.6, 1.4, 0.5)
"""Validation loss by epoch: it falls, stands still, falls on, and jumps."""
ACCURACIES: Final = (0.2, 0.3, 0.45, 0.6, 0.6, 0.6, 0.61, 0.6, 0.75, 0.8, 0.4, 0.3)
NONFINITE: Final = (5, 1)
"""Epoch and step at which a gradient has elements that are not finite."""
SPIKE: Final = (6, 2)
"""Epoch and step at which the training loss is far above the steps before."""
EXPLODES: Final = (8, 0)
"""Epoch and step at which gradients are enormous."""
SHOWN: Final = (1, 6)
"""Epochs of which snapshot, brief and features are kept whole; the other ones are in the metrics and records."""
OVERFLOWS: Final = {(1, 2), (4, 0), (4, 1)}
"""Epochs and steps that loss scaling skips."""

SHARED: Final[dict[str, Any]] = {
    "process__describe": False,  # a description of the machine
    "service_name": "seeded",
    "strict": False,
    "console__enabled": False,
    # What depends on the speed of the machine is switched off, or given all the time in the world.
    "limits__validation_wait_seconds": 60.0,
    "limits__exit_timeout_seconds": WAIT,
    "limits__readback_queue_size": 4_096,
    "limits__gauge_points_per_export": 1_000_000,
    "sharpness__budget_milliseconds": 3_600_000.0,
}
RULES: Final[dict[str, Any]] = {
    "diagnostics__rules__warm_up": 4,
    "diagnostics__rules__window": 8,
    "diagnostics__rules__recoveries": 2,
    "diagnostics__rules__cooldown": 2,
    "diagnostics__rules__confirmations": 2,
    "diagnostics__rules__validations": 1,
}


class Clock:
    """Wall clock that stands still until it is advanced."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        return self.now

    def advance(self, milliseconds: int) -> None:
        """Move on."""
        self.now += milliseconds * MILLISECOND


@dataclass
class Learner:
    """A network, its optimizer, and how one step of it is trained."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    name: str | None = None
    scaler: torch.amp.GradScaler | None = None
    clip: float | None = None
    breaks: bool = False
    features: int = 6

    def watch(self, env: Environment | Run) -> Any:
        return env.watch(self.model, self.optimizer, name=self.name, scaler=self.scaler)

    def loss(self, size: int = 8) -> torch.Tensor:
        inputs = torch.randn(size, self.features, generator=self.generator, dtype=torch.float64)
        loss: torch.Tensor = (self.model(inputs) - inputs[:, :1]).square().mean()
        return loss

    def step(self, env: Environment | Run, place: tuple[int, int], logged: Callable[[torch.Tensor], Any]) -> None:
        """Train one step; weights survive gradients that are not finite."""
        self.optimizer.zero_grad()
        loss = self.loss()
        if self.scaler is not None:
            broken = torch.inf if place in OVERFLOWS else 1.0
            torch.autograd.backward(self.scaler.scale(loss * broken))
        else:
            torch.autograd.backward(loss * (1e6 if place == EXPLODES and self.breaks else 1.0))
        env.log_loss(logged(loss), model=self.name)
        env.log(twice=loss.detach() * 2)
        env.log_items(samples=16)
        if self.clip is not None:
            env.clip_grad_norm_(self.model.parameters(), self.clip, model=self.name)
        with self.preserved(place in {NONFINITE, EXPLODES} and self.breaks):
            if place == NONFINITE and self.breaks:
                first = next(each for each in self.model.parameters() if each.grad is not None)
                assert first.grad is not None
                first.grad.view(-1)[:2] = torch.tensor([torch.nan, torch.inf])
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()

    @contextmanager
    def preserved(self, wanted: bool) -> Iterator[None]:
        before = [each.detach().clone() for each in self.model.parameters()] if wanted else []
        yield
        with torch.no_grad():
            for parameter, kept in zip(self.model.parameters(), before, strict=False):
                parameter.copy_(kept)


def dense(generator: torch.Generator, *sizes: int) -> nn.Sequential:
    """Return layers with seeded weights; in double precision, so that six digits are the same on every processor."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), nn.Tanh()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return network


@dataclass
class Counting(logging.Handler):
    """Counts log lines by logger and level: their words may change."""

    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[f"{record.name} {record.levelname}"] += 1

    __hash__ = logging.Handler.__hash__


def main(folder: Path) -> None:
    """Run it, with all files in a folder."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(20_240_229)
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = (
        "0"  # metrics are exported where the program flushes, and at no other time
    )
    lines = Counting()
    logging.getLogger("nissa").addHandler(lines)
    logging.getLogger("nissa").propagate = False
    clock = Clock(BEGIN)
    state = first(clock, folder)
    clock.advance(60_000)
    nissa.reset_hub()
    second(clock, folder, state)
    write(folder / "loglines.json", lines.counts)


def first(clock: Clock, folder: Path) -> dict[str, Any]:
    """Run a short run without environments, folded streams, and two seeds that are alive at its end."""
    memory = MemoryBackend()
    generator = torch.Generator().manual_seed(1)
    settings = SHARED | {"gradients__max_parameters": 4, "gradients__every_n_steps": 2, "gradients__top_k": 2}
    with nissa.start("diagnostic", run_id="first", clock=clock, backends=[memory], **settings) as run:
        model = nn.ModuleDict({"body": dense(generator, 6, 5, 4), "head": dense(generator, 4, 4, 1)})
        model.forward = lambda inputs: model["head"](model["body"](inputs))
        learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.05), generator)
        handle = learner.watch(run)
        moved = run.germinate("moved", blueprint="lora", slot="r0c0", module=model["head"])
        run.germinate("abandoned", blueprint="mlp", slot="r0c1", parameters=64).advance(Stage.TRAINING)
        moved.advance(Stage.TRAINING)
        for epoch in range(2):
            with run.epoch(epoch):
                for step in range(STEPS):
                    clock.advance(100 + 10 * step)
                    learner.step(run, (-1, step), lambda loss: loss)
                clock.advance(30)
                run.validate(loss=1.0 - epoch / 4, accuracy=0.5, per_class_accuracy={0: 0.4, 1: 0.6})
        moved.advance(Stage.BLENDING, alpha=0.25)
        moved.set_alpha(0.5)
        clock.advance(10)
        handle.close()
        state = moved.state_dict()
        objects = {"states": run.seed_states(), "analytics": run.analytics.snapshot(), "history": told(run)}
        settle(run)
    write(folder / "first.json", objects | remembered(memory))
    return state


def second(clock: Clock, folder: Path, state: dict[str, Any]) -> None:
    """Run the long run: two environments, four optimizers, seeds through handles and through events of others."""
    memory = MemoryBackend()
    settings = SHARED | RULES | {"gradients__every_n_steps": 2, "gradients__percentiles": (50, 99)}
    settings |= {"sharpness__every_n_epochs": 4}
    run = nissa.start("research", run_id="second", clock=clock, backends=[memory], **settings)
    script = Script(run, clock)
    resumed = run.resume_seed(state)
    for epoch in range(EPOCHS):
        script.epoch(epoch)
        resumed.advance(Stage.PROBATIONARY, alpha=1.0) if epoch == 2 else None
        resumed.fossilize(improvement=0.0125) if epoch == 3 else None
        if epoch % 6 == 5:
            settle(run)
    script.odd_ends()
    settle(run)
    objects = script.objects()
    run.close()
    write(folder / "second.json", objects | remembered(memory))


def settle(run: Run) -> None:
    """Export everything so far, so that each export holds the same points every time."""
    assert run.flush(WAIT), "the machine is too busy to flush within two minutes"


class Script:
    """What happens in the second run."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self.run, self.clock = run, clock
        self.envs = [run.environment(0), run.environment("one")]
        generator = torch.Generator().manual_seed(2)
        self.generator = generator
        self.host = dense(generator, 6, 8, 4, 1)
        self.seed_module = nn.Sequential(nn.Linear(6, 6, dtype=torch.float64))
        with torch.no_grad():
            for each in self.seed_module.parameters():
                each.copy_(torch.randn(each.shape, generator=generator, dtype=torch.float64) * 0.1)
        critic, scaled = dense(generator, 6, 3, 1), dense(generator, 6, 4, 1)
        fused = dense(generator, 6, 2, 1)
        self.learners = [
            [
                Learner(
                    self.host,
                    torch.optim.SGD(self.host.parameters(), lr=0.02),
                    generator,
                    "host",
                    None,
                    1.0,
                    breaks=True,
                ),
                Learner(critic, torch.optim.Adam(critic.parameters(), lr=0.01), generator, name="critic"),
            ],
            [self._scaled(scaled, None), self._scaled(fused, "fused")],
        ]
        for env, learners in zip(self.envs, self.learners, strict=True):
            for learner in learners:
                learner.watch(env)
        self.seeds: dict[str, Seed] = {}
        self.lives = [self._kept(), self._culled(), self._refused(), self._foreign()]
        self.told: dict[str, Any] = {}

    def _scaled(self, model: nn.Sequential, name: str | None) -> Learner:
        groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.02}]
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, fused=name == "fused")
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=5)
        return Learner(model, optimizer, self.generator, name=name, scaler=scaler)

    def epoch(self, number: int) -> None:
        """Train both environments, one after the other."""
        for index, env in enumerate(self.envs):
            with env.epoch(number):
                for step in range(STEPS):
                    self.clock.advance(80 + 7 * step + number)
                    for learner in self.learners[index]:
                        learner.step(env, (number, step), self._logged(number, step))
                    if index == 0 and step == 1:
                        for life in self.lives:
                            next(life, None)
                self.clock.advance(25)
                self._validate(index, env, number)
                if number % 3 == 0:
                    with env.checkpoint(f"model-{number}.pt"):
                        self.clock.advance(40)
            self.clock.advance(15)

    @staticmethod
    def _logged(number: int, step: int) -> Callable[[torch.Tensor], Any]:
        if (number, step) == SPIKE:
            return lambda loss: loss * 50
        return lambda loss: float(loss.detach()) if step == 3 else loss

    def _validate(self, index: int, env: Environment, number: int) -> None:
        if index and number == 7:
            return  # an epoch that nobody validates
        model = self.learners[index][0].model
        batch = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
        shift = 0.01 * index
        spread = 0.45 if number in {6, 7} else 0.02
        snapshot = env.validate(
            loss=torch.tensor(LOSSES[number] + shift, dtype=torch.float64),
            accuracy=ACCURACIES[number] - shift,
            train_accuracy=ACCURACIES[number] + 0.05,
            per_class_accuracy={"cat": ACCURACIES[number] - spread / 2, "dog": ACCURACIES[number] + spread / 2},
            per_class_loss={"cat": 1.0, "dog": 0.5},
            closure=lambda: model(batch).square().mean(),
        )
        if number not in SHOWN:
            return
        about = {
            "brief": env.brief(action="wait", reason="because").model_dump(mode="json"),
            "features": env.features(),
        }
        self.told[f"{env.env_id} {number:02d}"] = {"snapshot": snapshot.to_dict(), **about}

    def _germinate(self, seed_id: str, **fields: Any) -> Seed:
        seed = self.seeds[f"{seed_id} {len(self.seeds)}"] = self.envs[0].germinate(seed_id, **fields)
        return seed

    def _kept(self) -> Iterator[None]:
        """Graft a module into the host's optimizer, keep it, and take it out at the end."""
        optimizer = self.learners[0][0].optimizer
        self.host.insert(0, self.seed_module)
        optimizer.add_param_group({"params": list(self.seed_module.parameters())})
        seed = self._germinate("kept", blueprint="norm", slot="r0c0", module=self.seed_module)
        seed.gate(GateResult("G0", passed=True))
        yield
        seed.advance(Stage.TRAINING)
        seed.isolation_violation("the host moved")
        yield
        failed = ("gain_0.10%", "age")
        seed.gate(GateResult("G2", passed=False, score=0.1, checks_failed=failed, message="too little"))
        yield
        seed.gate(GateResult("G2", passed=True, score=0.8, checks_passed=("gain_1.20%",)))
        seed.advance(Stage.BLENDING, alpha=0.3)
        yield
        seed.set_alpha(0.6)
        yield
        seed.advance("holding", alpha=1.0)
        yield
        seed.advance(Stage.BLENDING, alpha=0.7)
        seed.advance(Stage.SHADOWING)
        seed.advance(Stage.PROBATIONARY, alpha=1.0)
        yield
        seed.gate(GateResult("G5", passed=True, score=0.95))
        seed.fossilize(improvement=0.025)
        yield
        del self.host[0]
        del optimizer.param_groups[-1]

    def _culled(self) -> Iterator[None]:
        """Cull a seed, let the slot cool down, and begin a second life under the same name."""
        yield
        seed = self._germinate("culled", blueprint="conv_light", slot="r0c1", parameters=120)
        seed.advance(Stage.TRAINING)
        yield
        seed.cull(reason="no improvement", improvement=-0.003)
        yield
        for stage in (Stage.EMBARGOED, Stage.RESETTING, Stage.DORMANT):
            seed.advance(stage)
            yield
        again = self._germinate("culled", blueprint="conv_heavy", slot="r0c1", parameters=240)
        seed.advance(Stage.TRAINING)  # the handle of the earlier life
        again.advance(Stage.TRAINING)
        yield
        again.cull(reason=None)

    def _refused(self) -> Iterator[None]:
        """Ask for what the table does not allow, and stay alive until the run ends."""
        seed = self._germinate("open", blueprint="own", slot="r1c0")
        seed.fossilize(improvement=0.5)
        self.envs[0].germinate("open", blueprint="own", slot="r1c0")
        yield
        seed.advance(Stage.TRAINING)
        yield
        seed.advance(Stage.GERMINATED)
        yield
        seed.advance(Stage.BLENDING, alpha=0.1)

    def _foreign(self) -> Iterator[None]:
        """Emit what the slots of another package emit: percent, other words, ends without stage changes."""
        tell = self.run.hub.emitter(percent=True, env_id=0)

        def event(kind: str, seed_id: str, **data: Any) -> None:
            # Text, since a binary fraction of seconds holds no nanoseconds.
            tell({"event_type": kind, "seed_id": seed_id, "slot_id": f"slot {seed_id}", "time_unix_nano": self.clock(),
                  "data": data, "message": f"about {seed_id}"})  # fmt: skip

        event("SEED_GERMINATED", "f1", blueprint="attention", params=4_800)
        event("SEED_GERMINATED", "f2", blueprint="depthwise", params=96)
        yield
        for name in ("f1", "f2"):
            event("SEED_STAGE_CHANGED", name, from_stage="GERMINATED", to_stage="TRAINING")
        event("SEED_GATE_EVALUATED", "f1", gate="G1", passed=True, checks_passed=["ready"])
        event("ISOLATION_VIOLATION", "f2")
        yield
        event("SEED_STAGE_CHANGED", "f1", from_stage="TRAINING", to_stage="BLENDING", alpha=0.5)
        event("SEED_PRUNED", "f2", reason="worse", improvement=-1.5)
        event("SEED_STAGE_CHANGED", "f2", from_stage="TRAINING", to_stage="CULLED")
        yield
        event("SEED_STAGE_CHANGED", "late", from_stage=3, to_stage=4, blueprint="lora_large", epochs_total=7)
        event("SEED_STAGE_CHANGED", "f1", to_stage="PROBATIONARY", alpha=1.0)
        yield
        event("SEED_STAGE_CHANGED", "f1", to_stage="FOSSILIZED")
        event("SEED_FOSSILIZED", "f1", improvement=2.5, params_added=4_800)
        event("SEED_FOSSILIZED", "late", improvement=0.5)
        yield
        event("SEED_STAGE_CHANGED", "unseen", from_stage="EMBARGOED", to_stage="RESETTING")
        event("SEED_CULLED", "never heard of", reason="gone")
        event("POLICY_DECISION", "f1", action="WAIT", probabilities=[0.25, 0.75], value=1.5, entropy=float("nan"))
        event("SEED_STAGE_CHANGED", "f1", to_stage="NOWHERE")
        self.run.hub.emit({"event_type": "SEED_GERMINATED", "time_unix_nano": self.clock()})
        self.run.hub.emit("no event")
        at: dict[str, Any] = {"epoch": 6, "time_unix_nano": self.clock(), "severity": nissa.Severity.ERROR}
        self.run.hub.emit(TelemetryEvent("REWARD_COMPUTED", data={"reward": 0.1 + 0.2}, message="hacked", **at))
        self.run.hub.emit(TelemetryEvent("PLATEAU_DETECTED", env_id="one", data={"epochs": 3}, **at))

    def odd_ends(self) -> None:
        """Do what rarely happens: an epoch and a checkpoint that fail, a validation outside of epochs, measured costs."""
        env = self.envs[0]
        with suppress(ValueError), env.epoch(EPOCHS):
            self.clock.advance(50)
            with suppress(OSError), env.checkpoint("full.pt"):
                self.clock.advance(5)
                raise OSError("disk full")
            raise ValueError("diverged")
        self.clock.advance(5)
        env.validate(loss=float("nan"), accuracy=0.25)
        self.run.validate(accuracy=0.75)
        module = nn.Linear(6, 6, dtype=torch.float64)
        example = torch.ones(2, 6, dtype=torch.float64)
        self.run.analytics.measure("own", module, example, host=self.host, host_example=example)
        self.clock.advance(5)

    def objects(self) -> dict[str, Any]:
        """Return what the public objects say."""
        analytics = self.run.analytics
        owners: list[Environment | Run] = [self.run, *self.envs]
        return {
            "validations": self.told,
            "history": {str(each.env_id): told(each) for each in owners},
            "seeds": {name: about(seed) for name, seed in self.seeds.items()},
            "states": self.run.seed_states(),
            "analytics": analytics.snapshot(),
            "analytics state": analytics.state_dict(),
            "priors": {name: repr_of(analytics.prior(name)) for name in ("norm", "conv_light", "own", "attention")},
            "compute": [analytics.compute_cost(0), analytics.rent(0)],
            "rejections": dict(self.run.hub.rejections),
        }


def told(env: Environment | Run) -> list[str]:
    return [snapshot.narrative for snapshot in env.history]


def about(seed: Seed) -> dict[str, Any]:
    return {"text": repr(seed), "state": seed.state_dict(), "features": seed.features()}


def repr_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def remembered(memory: MemoryBackend) -> dict[str, Any]:
    """Return the events of a backend in memory, and how many measurements it got of each kind."""
    events = [event.to_dict() for event in memory.events]
    return {"events": events, "measurements": Counter(type(each).__name__ for each in memory.measurements)}


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
