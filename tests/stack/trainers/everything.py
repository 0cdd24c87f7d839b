"""Trains a small network while everything happens that telemetry has a name for, and prints what it did as JSON.

Argument: the file that the state of the seed goes to whose fate is still open at the end.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from time import time_ns
from typing import Any

import torch

import nissa
from nissa import GateResult, Run, Seed, Stage, TelemetryEvent
from nissa.hub.measurements import ReplicasCompared
from nissa.run import backends
from nissa.run.memory_usage import DeviceMemory
from nissa.run.observation import log_backward_value

_logger = logging.getLogger("trainer")

STEPS = 3
ACCURACIES = (0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2)
"""By epoch: they rise, and fall again."""


def main(state: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["TRACEPARENT"] = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"  # as a launcher would
    _simulate_device()
    logging.getLogger().addHandler(logging.NullHandler())  # what is logged below is not printed
    with nissa.start("research", strict=False, console__enabled=False, logs__capture=True) as run:
        env = run.environment(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        groups = [{"params": [each for each in model.parameters() if each.ndim == size]} for size in (1, 2)]
        optimizer = torch.optim.SGD(groups, lr=0.01)
        scaler = torch.amp.GradScaler("cpu")
        env.watch(model, optimizer, name="toy", scaler=scaler)
        seeds = [env.germinate(name, blueprint=f"{name}-blueprint", slot=name, parameters=10) for name in "ab"]
        run.analytics.measure("a-blueprint", model[0], torch.ones(1, 8), host=model, host_example=torch.ones(1, 8))
        seeds.append(env.germinate("c", blueprint="c-blueprint", slot="c", module=model[2]))
        _skip(model, optimizer, scaler)
        # As on several ranks; tests/distributed has these.
        run.hub.record(
            ReplicasCompared(
                env_id="0",
                model_name="toy",
                step=0,
                time_unix_nano=time_ns(),
                ranks=(0, 1),
                outcome="equal",
                leads=True,
                skew=0.1,
            )
        )
        lives = [_kept(seeds[0]), _refused(seeds[1])]
        for epoch, accuracy in enumerate(ACCURACIES):
            with env.epoch(epoch):
                _logger.warning("epoch %d", epoch)
                _warn()
                for life in lives:
                    next(life, None)
                for step in range(STEPS):
                    inputs = torch.randn(16, 8)
                    if (epoch, step) == (len(ACCURACIES) - 1, STEPS - 1):
                        inputs[0, 0] = torch.inf
                    loss = model(inputs).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    env.log_loss(loss)
                    log_backward_value(env, loss, model="toy")  # as the observer of a script without Nissa does
                    if step == 0:
                        env.clip_grad_norm_(model.parameters(), 1.0)
                    env.log({"policy/entropy": loss.detach() * 2}, kl=0.25)
                    env.log_items(samples=16, tokens=torch.tensor(128))
                    optimizer.step()
                env.validate(
                    loss=0.1 if epoch == len(ACCURACIES) - 1 else 1.0,  # the end of a plateau
                    accuracy=accuracy,
                    train_accuracy=0.6,
                    per_class_accuracy={"cat": 0.1, "dog": 0.9},
                    closure=lambda: model(torch.ones(4, 8)).square().mean(),
                )
                with env.checkpoint("model.pt"):
                    pass
            assert run.flush()  # an export for each epoch, so that deltas have something to add up
        _foreign(run)
        seeds[2].advance(Stage.TRAINING)
        state.write_text(json.dumps(seeds[2].state_dict()))
        return {"run_id": run.run_id, "seeds": {seed.seed_id: _told(seed) for seed in seeds}}


def _simulate_device() -> None:
    """Have runs of this process measure a CUDA device, on machines without one."""
    gib = 1 << 30
    device = DeviceMemory("cuda:0", "NVIDIA H200", allocated=3 * gib, peak=5 * gib, reserved=6 * gib, total=140 * gib)
    setattr(backends, "device_memory", lambda: iter([device]))  # noqa: B010 - a name that the module imports


def _warn() -> None:
    """Let torch warn, unseen on standard error."""
    show = warnings.showwarning
    with warnings.catch_warnings(record=True):
        show("a warning of torch", UserWarning, torch.__file__, 1)


def _skip(model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Overflow, so that the scaler leaves the step out."""
    scaler.scale(model(torch.randn(16, 8)).sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()


def _kept(seed: Seed) -> Any:
    seed.advance(Stage.TRAINING)
    seed.isolation_violation("the host moved")
    yield
    passed = {"passed": False, "score": 0.1, "checks_passed": ("age",), "checks_failed": ("gain_0.10%",)}
    seed.gate(GateResult("G2", message="too little", **passed))  # type: ignore[arg-type]  # one dictionary for all
    yield
    seed.advance(Stage.GERMINATED)
    seed.advance(Stage.BLENDING, alpha=0.5)
    seed.gate(GateResult("G3", passed=True, score=0.9))
    yield
    seed.advance(Stage.SHADOWING)
    yield
    seed.advance(Stage.PROBATIONARY, alpha=1.0)
    yield
    seed.fossilize(improvement=0.01)


def _refused(seed: Seed) -> Any:
    yield
    seed.cull(reason="no improvement", improvement=-0.01)
    yield
    for stage in (Stage.EMBARGOED, Stage.RESETTING, Stage.DORMANT):
        seed.advance(stage)
        yield


def _foreign(run: Run) -> None:
    """Tell of a seed that had germinated before anybody looked, and of something that is nobody's event."""
    change = {"from": "germinated", "to": "training", "blueprint_id": "late-blueprint"}
    run.hub.emit(TelemetryEvent("SEED_STAGE_CHANGED", seed_id="late", slot_id="d", env_id="0", data=change))
    run.hub.emit({"event_type": "ANYTHING", "data": {"detail": 1}})
    run.hub.emit("no event")


def _told(seed: Seed) -> dict[str, Any]:
    return {"trace_id": seed.trace_id, "span_id": f"{seed.ids.span_id:016x}", "history": seed.history}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
