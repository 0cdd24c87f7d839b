"""Trains until somebody ends it, in the middle of an epoch and of a seed's stage.

Argument: ``own-handler`` for a handler of SIGTERM that the application brought itself. Prints the trace of its seed as
soon as the stage has begun.
"""

import signal
import sys
from time import sleep

import torch

import nissa
from nissa import Run, Stage

STATUS = 3
"""What the application's own handler exits with."""


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(run: Run) -> None:
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        run.log_loss(loss)
        optimizer.step()

    if "own-handler" in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(model, optimizer)
        seed = run.germinate("seed-1", blueprint="conv", slot="r0c0")
        with run.epoch(0):
            for _ in range(3):
                step(run)
            run.validate(loss=1.0, accuracy=0.5)
        with run.epoch(1):
            seed.advance(Stage.TRAINING)
            for _ in range(2):  # a step's duration, and with it its span, begins at the one before
                step(run)
            sys.stdout.write(f"{seed.trace_id}\n")
            sys.stdout.flush()
            while True:
                step(run)
                sleep(0.01)


if __name__ == "__main__":
    main()
