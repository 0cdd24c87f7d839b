"""Trains while a story happens of which everything is known, for the questions of the how-to about traces.

Arguments: ``whole FILE`` for the story, of which one seed's fate is left open and its state goes to the file; ``resume
FILE`` for the end of that seed; ``wait NAME`` for a seed that trains until somebody ends the process.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any, Final

import torch

import nissa
from nissa import GateResult, Run, Seed, Stage

EPOCHS, STEPS = 6, 10
SPIKE: Final = (3, 5)
SLOW: Final = (2, 4)
SLOW_SECONDS: Final = 3.0
NO_DISK: Final = 4
"""Epoch whose checkpoint cannot be saved."""

NO_GAIN: Final = "no improvement"
UNSTABLE: Final = "unstable gradients"
FAILED: Final = (
    ("conv_light", ("gain_0.10%",)),
    ("conv_heavy", ("gain_0.02%", "age")),
    ("conv_heavy", ("gain_0.01%",)),
)
"""Blueprint and failed checks of each time that G2 let a seed not pass."""


def number(epoch: int, step: int) -> int:
    """Return the number of a step; one was taken before the first epoch."""
    return 1 + epoch * STEPS + step


class Loop:
    """A training loop whose losses are made up."""

    def __init__(self, run: Run) -> None:
        torch.manual_seed(0)
        self.run = run
        self.steps = 0
        self._model = torch.nn.Linear(8, 2)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01)
        run.watch(self._model, self._optimizer)
        self._train()  # what a first step has imported and compiled takes seconds, which are no part of the story
        run.flush()

    def step(self, loss: float | None = None, pause: float = 0.005) -> None:
        """Take a step whose loss is said to be a number."""
        self.run.log_loss(1.0 + 0.01 * (self.steps % 3) if loss is None else loss)
        sleep(pause)
        self._train()
        self.steps += 1

    def _train(self) -> None:
        self._optimizer.zero_grad()
        self._model(torch.randn(4, 8)).square().mean().backward()
        self._optimizer.step()


class Story:
    """What happens to the seeds, epoch by epoch."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.seeds: dict[str, Seed] = {}
        self._then = (self._first, self._second, self._third, self._fourth, self._fifth, self._sixth)

    def go_on(self, epoch: int) -> None:
        self._then[epoch]()

    def _sow(self, name: str, blueprint: str, slot: str, *, train: bool = True) -> None:
        self.seeds[name] = self._run.germinate(name, blueprint=blueprint, slot=slot, parameters=100)
        if train:
            self.seeds[name].advance(Stage.TRAINING)

    def _gate(self, name: str, gate: str, failed: tuple[str, ...] = ()) -> None:
        self.seeds[name].gate(GateResult(gate, passed=not failed, score=0.5, checks_failed=failed))

    def _first(self) -> None:
        self._sow("kept", "conv_light", "r0c0")
        self._sow("weak", "conv_heavy", "r0c1")
        self._sow("early", "attention", "r0c2")
        self._sow("patient", "attention", "r1c0")
        self._sow("moved", "conv_light", "r1c1", train=False)

    def _second(self) -> None:
        self._gate("kept", "G2", FAILED[0][1])
        self._gate("weak", "G2", FAILED[1][1])
        self.seeds["early"].cull(reason=UNSTABLE, improvement=-0.02)

    def _third(self) -> None:
        self._gate("kept", "G2")
        self.seeds["kept"].advance(Stage.BLENDING, alpha=0.5)
        self._gate("weak", "G2", FAILED[2][1])

    def _fourth(self) -> None:
        self._sow("unstable", "attention", "r0c2")
        self._gate("unstable", "G1", ("gain_0.00%",))
        self._gate("unstable", "G2")

    def _fifth(self) -> None:
        self.seeds["weak"].cull(reason=NO_GAIN, improvement=-0.01)
        self.seeds["unstable"].cull(reason=UNSTABLE)
        self.seeds["kept"].advance(Stage.PROBATIONARY, alpha=1.0)

    def _sixth(self) -> None:
        self.seeds["kept"].fossilize(improvement=0.02)
        self.seeds["patient"].cull(reason=NO_GAIN, improvement=-0.001)
        self.seeds["moved"].advance(Stage.TRAINING)


def whole(run: Run, state: Path) -> Any:
    """Tell the story, and return what is known of it."""
    loop, story = Loop(run), Story(run)
    for epoch in range(EPOCHS):
        with run.epoch(epoch):
            story.go_on(epoch)
            for step in range(STEPS):
                here = (epoch, step)
                loop.step(9.0 if here == SPIKE else None, SLOW_SECONDS if here == SLOW else 0.005)
            run.validate(loss=1.0 - 0.1 * epoch, accuracy=0.5 + 0.05 * epoch)
            _checkpoint(run, epoch)
    state.write_text(json.dumps(story.seeds["moved"].state_dict()))
    return {name: {"trace_id": seed.trace_id, "history": seed.history} for name, seed in story.seeds.items()}


def _checkpoint(run: Run, epoch: int) -> None:
    with suppress(OSError), run.checkpoint(f"epoch-{epoch}.pt"):
        if epoch == NO_DISK:
            raise OSError("no space left on device")


def resume(run: Run, state: Path) -> Any:
    """Bring the seed that the story left open to its end."""
    seed = run.resume_seed(json.loads(state.read_text()))
    with run.epoch(EPOCHS):
        seed.advance(Stage.BLENDING, alpha=0.5)
        seed.advance(Stage.PROBATIONARY, alpha=1.0)
        seed.fossilize(improvement=0.03)
    return {"moved": {"trace_id": seed.trace_id, "history": seed.history}}


def wait(run: Run, name: Path) -> Any:
    """Train a seed until somebody ends the process."""
    loop = Loop(run)
    seed = run.germinate(str(name), blueprint="conv_light", slot="r9c9")
    with run.epoch(0):
        seed.advance(Stage.TRAINING)
        loop.step()
        sys.stdout.write(f"{seed.trace_id}\n")
        sys.stdout.flush()
        while True:
            loop.step()


_MODES: Final[dict[str, Callable[[Run, Path], Any]]] = {"whole": whole, "resume": resume, "wait": wait}


def main(mode: str, argument: str) -> None:
    torch.set_num_threads(1)
    with nissa.start("diagnostic", console__enabled=False) as run:
        told = _MODES[mode](run, Path(argument))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
