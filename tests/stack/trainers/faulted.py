"""Trains, grows a seed per pass over its data, and notes each, while a test injects faults from outside.

Arguments: ``start`` (a run of its own), ``observed`` (a run that an entry point starts) or ``bare`` (no run); how it ends;
how it starts a child process, if it starts one.

It ends when a file ``end`` appears in its folder. Each line of its output is a JSON object.
"""

import json
import multiprocessing
import os
import resource
import sys
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from time import perf_counter, sleep, time
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import nissa
from nissa import Run, Seed, Stage

STATUS = 3
_BATCHES = 20
_PAUSE_SECONDS = 0.004
_CHILD_PASSES = 5
_HEADROOM = 64 << 20


class Training:
    """A small network and what happens to it."""

    def __init__(self, door: str, prefix: str = "") -> None:
        torch.manual_seed(0)
        self.door, self.prefix = door, prefix
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.001)
        self.loader = DataLoader(TensorDataset(torch.randn(4 * _BATCHES, 8)), batch_size=4)
        self.run: Run | None = None
        self.seconds: list[float] = []
        if door == "start":
            self.run = nissa.start("standard", console__enabled=False)
            self.run.watch(self.model, self.optimizer)
            self.open()

    def open(self) -> None:
        assert self.run is not None
        self.note(self.run.germinate(f"{self.prefix}open", blueprint="conv", slot="open"), "open")

    def train_once(self, number: int) -> None:
        """Make a pass over the data; a seed lives within it."""
        with self.run.epoch(number) if self.run is not None and self.door == "start" else nullcontext():
            seed = None
            for (batch,) in self.loader:
                self.step(batch)
                if self.door == "observed" and self.run is None:
                    self.run = nissa.current_run()
                    self.open()
                if seed is None and self.run is not None:
                    seed = self.run.germinate(f"{self.prefix}seed-{number}", blueprint="conv", slot="r0c0")
                    seed.advance(Stage.TRAINING)
            if seed is not None:
                seed.cull(reason="no gain")
                self.note(seed, "life")

    def step(self, batch: torch.Tensor) -> None:
        began = perf_counter()
        loss = self.model(batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        sleep(_PAUSE_SECONDS)  # a device at work
        self.seconds.append(perf_counter() - began)

    def note(self, seed: Seed, what: str) -> None:
        assert self.run is not None
        write(
            note=what,
            run=self.run.run_id,
            rank=int(os.environ.get("RANK", "-1")),
            seed=seed.seed_id,
            trace=seed.trace_id,
            span=f"{seed.ids.span_id:016x}",
            at=time(),
            steps=len(self.seconds),
            memory=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
        )


def write(**line: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


def child(door: str) -> None:
    """Train a little in a process of its own."""
    training = Training(door, "child-")
    for number in range(_CHILD_PASSES):
        training.train_once(number)
    if training.run is not None:
        training.run.close()


def exhaust() -> None:
    """Take memory until there is none."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _HEADROOM, resource.RLIM_INFINITY))
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def main(door: str, end: str, start_method: str = "") -> None:
    torch.set_num_threads(1)
    training = Training(door)
    children = []
    for number in count():
        training.train_once(number)
        if number == 1 and start_method:
            context: Any = multiprocessing.get_context(start_method)
            children.append(context.Process(target=child, args=(door,)))
            children[0].start()
        if end == "dying rank" and os.environ["RANK"] == "1" and number == 20:
            os._exit(STATUS)
        if Path("end").exists():
            break
    for process in children:
        process.join()
        assert process.exitcode == 0
    if end == "os._exit":
        os._exit(STATUS)
    if end == "exception":
        raise RuntimeError("so says the test")
    if end == "memory":
        exhaust()
    if training.run is not None and door == "start":
        training.run.close()
    write(note="end", seconds=training.seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
