"""The ways of watching: Nissa's profiles, and how any way is entered, attached to a training, and taken off again."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What a training loop calls while it is watched.

    Args:
        before: Called with the loss after ``loss.backward()``, before ``optimizer.step()``.
        after: Called after ``optimizer.step()``.
    """

    before: Callable[[Tensor], None] = nothing
    after: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True)
class Watching:
    """A way that has been entered.

    Args:
        attached: Enters what makes a training watched; in between it is bare.
        export: Begins an export in the background; called once in each watched block.
        background: Returns CPU seconds of the way's own threads so far; None where it has none that can be told apart.
    """

    attached: Callable[[], AbstractContextManager[Calls]]
    export: Callable[[], None] = nothing
    background: Callable[[], float] | None = None


Entering = Callable[[nn.Module, Optimizer, Path], AbstractContextManager[Watching]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way of watching.

    Args:
        entering: Enters it; the folder is where it may write.
        every: Steps from one sample to the next.
        steps: Steps of a block.
        rounds: It takes part in each so-manieth round.
        profile: The profile of Nissa that it is, without changes; None for everything else.
        package: Distribution that it needs.
    """

    entering: Entering
    every: int = 1
    steps: int = 10
    rounds: int = 1
    profile: str | None = None
    package: str | None = None


@contextmanager
def bare(_model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
    """Watch nothing: what is told of it is the noise of the benchmark."""

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls()

    yield Watching(attached)


def nissa(profile: str, **settings: Any) -> Entering:
    """Return what watches with a profile of Nissa, writing to files.

    Metrics are exported when the benchmark says so: a timer would as well strike in a block that is not watched.
    """

    @contextmanager
    def entering(model: nn.Module, optimizer: Optimizer, folder: Path) -> Iterator[Watching]:
        import nissa  # noqa: PLC0415 - only what is measured is imported
        from nissa.gradients.background import thread_times  # noqa: PLC0415 - as above

        logging.getLogger("nissa").setLevel(logging.ERROR)  # weights that a benchmark trains on noise raise red flags
        files = {"directory": str(folder), "export_interval_seconds": 3600}
        given = {"files": files, "console": {"enabled": False}, **settings}
        with nissa.start(profile, service_name="bench", **given) as run, run.epoch(0):

            @contextmanager
            def attached() -> Iterator[Calls]:
                watch = run.watch(model, optimizer)
                yield Calls(run.log_loss)
                watch.close()

            def export() -> None:
                threading.Thread(target=run.flush, args=(60.0,), name="nissa-bench-export").start()

            yield Watching(attached, export, lambda: sum(thread_times().values()) / 1e9)

    return entering
