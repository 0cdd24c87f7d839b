"""Run of a trainer: the active run, or one of its own that ends with the training."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import nissa
from nissa.integrations.patches import Patches
from nissa.run.observation import phase_timer

if TYPE_CHECKING:
    import torch

    from nissa.gradients.phases import PhaseTimer
    from nissa.gradients.watch import Watch
    from nissa.run.run import Run


class TrainerRun:
    """Life of a run within a trainer's callbacks.

    A run that is active when training begins is joined, and stays open at the end. Otherwise a run is started with the
    settings, and belongs to the trainer.

    Args:
        settings: Arguments of `nissa.start`.

    Attributes:
        run: The run; None before training begins and after it has ended.
        owned: Whether the run was started here.
        patches: Attributes of the trainer that are replaced until the end.
        resume: State of a run that the next one continues, from a checkpoint of the trainer.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        self.run: Run | None = None
        self.owned = False
        self.patches = Patches()
        self.resume: Mapping[str, Any] | None = None
        self._watches: list[Watch] = []

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle the settings alone: trainers send callbacks to other processes, and a run stays in its own."""
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]

    def begin(self, **more: Any) -> "Run":
        """Start or join a run. The run of an earlier training that did not end, because it raised, ends first.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        self.end()
        active = nissa.current_run()
        self.owned = active is None
        resume, self.resume = self.resume, None
        if resume is not None:
            more["resume"] = resume
        self.run = run = nissa.start(**{**more, **self.settings}) if active is None else active
        return run

    def state(self) -> "dict[str, Any] | None":
        """Return the state of the run for a checkpoint; None without a run that can be continued."""
        save = getattr(self.run, "state_dict", None)
        return None if save is None or self.run is None or self.run.closed else save()

    def watch(
        self,
        model: "torch.nn.Module",
        optimizers: "Sequence[torch.optim.Optimizer]",
        scaler: "torch.amp.GradScaler | None" = None,
    ) -> dict[int, str | None]:
        """Watch optimizers, each under a name of its own where there are several.

        Returns:
            The name of each watch, by ``id()`` of the optimizer.

        Raises:
            WatchError: An optimizer cannot be watched.
        """
        assert self.run is not None  # noqa: S101 - begin() is called before
        names = optimizer_names(model, optimizers)
        for optimizer, name in zip(optimizers, names, strict=True):
            self._watches.append(self.run.watch(model, optimizer, name=name, scaler=scaler))
        return {id(optimizer): name for optimizer, name in zip(optimizers, names, strict=True)}

    @contextmanager
    def guard(self, where: str) -> "Iterator[Run | None]":
        """Guard code of a callback, so that its faults are logged and counted and never reach the training."""
        run = None if self.run is None or self.run.closed else self.run
        if run is None:
            yield None
            return
        with run.hub.error_boundary.guard(where):
            yield run

    def phase(self, phase: str) -> AbstractContextManager[None]:
        """Measure a block as a phase of the step."""
        timer = self._timer
        return nullcontext() if timer is None else timer.measure(phase)

    def begin_phase(self, phase: str) -> None:
        """Begin a phase of the step."""
        if (timer := self._timer) is not None:
            timer.begin(phase)

    def end_phase(self, phase: str) -> None:
        """End a phase of the step."""
        if (timer := self._timer) is not None:
            timer.end(phase)

    @property
    def _timer(self) -> "PhaseTimer | None":
        return None if self.run is None or self.run.closed else phase_timer(self.run)

    def stop_watching(self) -> None:
        """Remove the watches, and restore the trainer."""
        self.patches.restore()
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.close()

    def end(self, error: BaseException | None = None) -> None:
        """Stop watching, restore the trainer, and end a run that was started here."""
        run, self.run = self.run, None
        if run is not None and not run.closed and self.owned:
            run.__exit__(None if error is None else type(error), error, None)
        self.stop_watching()


def optimizer_names(model: "torch.nn.Module", optimizers: "Sequence[torch.optim.Optimizer]") -> list[str | None]:
    """Return the name of each optimizer's watch: the part of the model that it trains; None for a single optimizer.

    Optimizers that train the same part, or a part without a name, are numbered.
    """
    if len(optimizers) == 1:
        return [None]
    owners = {
        frozenset(map(id, module.parameters())): name
        for name, module in reversed(list(model.named_modules()))  # the outermost of modules with the same parameters
        if name
    }
    names = [owners.get(_parameter_ids(each)) or f"optimizer_{number}" for number, each in enumerate(optimizers)]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]


def _parameter_ids(optimizer: "torch.optim.Optimizer") -> frozenset[int]:
    return frozenset(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
