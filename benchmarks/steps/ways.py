"""The ways of watching: Nissa's profiles, and how any way is entered, attached to a training, and taken off again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.steps.threads import Exporter, Spent, spent


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
        exporter: What exports when the benchmark says so; None where there is none, or it has its own time.
        spent: Returns what the way's own threads took so far; nothing where they cannot be told apart.
        hurry: Has what was left for later done now: called after a watched block, outside of timed time.
    """

    attached: Callable[[], AbstractContextManager[Calls]]
    exporter: Exporter | None = None
    spent: Callable[[], Spent] = Spent
    hurry: Callable[[], object] = nothing


Entering = Callable[[nn.Module, Optimizer, Path], AbstractContextManager[Watching]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of watching.

    Args:
        entering: Enters it; the folder is where it may write.
        pairs: Pairs of blocks in each of its rounds: with the next, its share of the time.
        rounds: It takes part in every so many rounds.
        every: Steps from one sample to the next.
        profile: The profile of Nissa that it is, without changes; None for everything else.
        timed: Enters it with exporters that keep their own time; None where it is none of Nissa.
        package: Distribution that it needs.
    """

    entering: Entering
    pairs: int = 1
    rounds: int = 1
    every: int = 1
    profile: str | None = None
    timed: Entering | None = None
    package: str | None = None


class StepHooks:
    """All hooks that are registered with an optimizer: taken off, and put back as they are.

    Watching anew would count steps from the beginning, and sample the first of them each time.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        there: tuple[dict[int, Any], ...] = (
            optimizer._optimizer_step_pre_hooks,  # noqa: SLF001 - there is no other way to it
            optimizer._optimizer_step_post_hooks,  # noqa: SLF001 - as above
        )
        self._kept = [(hooks, dict(hooks)) for hooks in there]
        self._take()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put them back for a while, after those that are there."""
        for hooks, kept in self._kept:
            hooks.update(kept)
        yield
        self._take()

    def _take(self) -> None:
        for hooks, kept in self._kept:
            for key in kept:
                hooks.pop(key, None)


@contextmanager
def bare(_model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
    """Watch nothing: what is told of it is the noise of the benchmark."""

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls()

    yield Watching(attached)


def nissa(profile: str, *, timer: bool = False, **settings: Any) -> Entering:
    """Return what watches with a profile of Nissa, writing to files.

    Args:
        profile: Its name.
        timer: Whether metrics are exported by a timer, as by default. Where blocks are timed it would as well strike in one
            that is not watched, and the benchmark says when.
        settings: Others than those of the profile.
    """

    @contextmanager
    def entering(model: nn.Module, optimizer: Optimizer, folder: Path) -> Iterator[Watching]:
        import nissa  # noqa: PLC0415 - only what is measured is imported
        from nissa.gradients.overhead import thread_times  # noqa: PLC0415 - as above

        logging.getLogger("nissa").setLevel(logging.ERROR)  # weights that a benchmark trains on noise raise red flags
        files: dict[str, Any] = {"directory": str(folder)} | ({} if timer else {"export_interval_seconds": 3600})
        given = {"files": files, "console": {"enabled": False}, **settings}
        with nissa.start(profile, service_name="bench", **given) as run, run.epoch(0):
            run.watch(model, optimizer)
            hooks = StepHooks(optimizer)

            @contextmanager
            def attached() -> Iterator[Calls]:
                with hooks.attached():
                    yield Calls(run.log_loss)

            exporter = Exporter(lambda: run.flush(60.0))
            # Numbers of steps that are not sampled are left for up to two seconds, in which other blocks would pay for them.
            reader = run._runtime.readback  # noqa: SLF001 - a flush of the run exports, too
            yield Watching(attached, exporter, lambda: spent(thread_times(), exporter), lambda: reader.flush(5.0))
            exporter.close()

    return entering
