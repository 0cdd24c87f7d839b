"""Ways of watching: Nissa's profiles, and the interface to enter, attach and detach any way."""

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
    """Callbacks of a watched training loop.

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
        attached: Context in which training is watched; outside of it training is bare.
        exporter: Exporter that the benchmark triggers; None without one, or if it uses a timer.
        spent: Returns the CPU time of the way's own threads so far; zero if they cannot be identified.
        hurry: Completes deferred work: called after a watched block, outside of the measured time.
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
        entering: Enters the way; gets the folder for its files.
        pairs: Pairs of blocks per round; together with ``rounds`` its share of the time.
        rounds: Takes part in every n-th round.
        every: Steps from one sample to the next.
        profile: Unchanged profile of Nissa; None for everything else.
        timed: Enters the way with exporters on a timer; None for other tools.
        package: Required distribution.
    """

    entering: Entering
    pairs: int = 1
    rounds: int = 1
    every: int = 1
    profile: str | None = None
    timed: Entering | None = None
    package: str | None = None


class StepHooks:
    """All hooks of an optimizer, which can be removed and restored.

    Watching again instead would restart the count of steps, and sample the first step each time.
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
        """Restore the hooks for a while, after those already registered."""
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
    """Watch nothing; its result is the noise of the benchmark."""

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls()

    yield Watching(attached)


def nissa(profile: str, *, timer: bool = False, **settings: Any) -> Entering:
    """Return a way that watches with a profile of Nissa and writes to files.

    Args:
        profile: Name of the profile.
        timer: Whether metrics are exported by a timer, as by default. If blocks are timed, the benchmark triggers exports,
            because a timer could fire in a bare block.
        settings: Settings that override the profile.
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
            # The values of unsampled steps are processed up to two seconds later, which would be charged to other blocks.
            reader = run._runtime.readback  # noqa: SLF001 - a flush of the run exports, too
            yield Watching(attached, exporter, lambda: spent(thread_times(), exporter), lambda: reader.flush(5.0))
            exporter.close()

    return entering
