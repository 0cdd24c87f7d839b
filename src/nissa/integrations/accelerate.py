"""Tracker for Hugging Face Accelerate: ``Accelerator(log_with=NissaTracker())``."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

import nissa
from nissa.integrations.callers import calling
from nissa.integrations.clipping import clipping
from nissa.integrations.trainer_options import TrainerOptions
from nissa.integrations.zero_code.observer import Observer

if TYPE_CHECKING:
    from nissa.run.run import Run


STATE_FILE: Final = "nissa.json"
"""File in a checkpoint of ``accelerator.save_state`` with the state of the run."""


class NissaTracker(TrainerOptions, GeneralTracker):
    """Watches the optimizers that an ``Accelerator`` prepares, and exports what the script logs to its trackers.

    ``init_trackers`` joins the active run, or starts one, and ``end_training`` ends it. Each optimizer is watched from its
    first step on. The loss of a step is the value passed to ``accelerator.backward``, averaged over the batches that the
    step accumulates. Epochs are the iterations over the data that steps are made in. Logged metrics with names such as
    ``eval_loss`` and ``eval_accuracy`` are results of a validation. ``save_state`` stores the state of the run as well, and
    ``load_state`` before the first step continues it.

    The arguments are those of `TrainerOptions`.

    Example:
        ``accelerator = Accelerator(log_with=NissaTracker())``, then ``accelerator.init_trackers("digits")``
    """

    name = "nissa"
    requires_logging_directory = False
    main_process_only = False

    def _prepare(self) -> None:
        self._observer: Observer | None = None
        self._handles: list[Any] = []

    @property
    def tracker(self) -> "Run | None":
        """The run; None before ``init_trackers`` and after ``end_training``."""
        return None if self._observer is None else self._observer.run

    def start(self) -> None:
        """Start or join a run, and watch each optimizer from its first step on."""
        self.finish()
        accelerator = calling(Accelerator)
        self._begin(accelerator)
        if accelerator is not None:
            self._handles = [
                accelerator.register_save_state_pre_hook(partial(self._save, accelerator)),
                accelerator.register_load_state_pre_hook(partial(self._load, accelerator)),
            ]

    def _begin(self, accelerator: Any, *, first_epoch: int = 0, **more: Any) -> None:
        active = nissa.current_run()
        run = nissa.start(**{**more, **self._settings}) if active is None else active
        self._observer = observer = Observer(run, owned=active is None, first_epoch=first_epoch)
        observer.install()
        if accelerator is not None:
            self._observe(accelerator, observer)

    def _observe(self, accelerator: Any, observer: Observer) -> None:
        """Observe the loss before it is divided and scaled, the norm before clipping, and checkpoints."""
        backward, save = accelerator.backward, accelerator.save_state

        def observed(loss: torch.Tensor, **kwargs: Any) -> None:
            with observer.losses.logged(loss):
                backward(loss, **kwargs)

        def save_state(output_dir: str | None = None, *args: Any, **kwargs: Any) -> Any:
            run = self.tracker
            if run is None or run.closed:
                return save(output_dir, *args, **kwargs)
            with run.checkpoint(output_dir or accelerator.project_dir):
                return save(output_dir, *args, **kwargs)

        observer.patches.replace(accelerator, "backward", observed)
        observer.patches.replace(accelerator, "save_state", save_state)
        observer.patches.replace(accelerator, "clip_grad_norm_", clipping(accelerator, lambda: self.tracker))

    def _save(self, accelerator: Any, _models: Any, _weights: Any, output_dir: str) -> None:
        """Store the state of the run in a checkpoint; that of the first rank serves all."""
        run, observer = self.tracker, self._observer
        if run is None or observer is None or run.closed or not accelerator.is_main_process:
            return
        with run.hub.error_boundary.guard("accelerate tracker"):
            state = {"run": run.state_dict(), "next_epoch": observer.next_epoch}
            Path(output_dir, STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _load(self, accelerator: Any, _models: Any, input_dir: str) -> None:
        """Continue the run of a checkpoint, if that of this tracker was started here and has made no step."""
        run, observer, path = self.tracker, self._observer, Path(input_dir, STATE_FILE)
        if run is None or observer is None or not observer.owned or observer.stepped or not path.exists():
            return
        with run.hub.error_boundary.guard("accelerate tracker"):
            state = json.loads(path.read_text(encoding="utf-8"))
            observer.uninstall()
            self._begin(accelerator, first_epoch=int(state["next_epoch"]), resume=state["run"])

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log results of a validation, and other metrics. The numbers of steps are those of the optimizer."""
        del step, kwargs
        run = self.tracker
        if run is None or run.closed:
            return
        with run.hub.error_boundary.guard("accelerate tracker"):
            loss, accuracy = self._names.find(values)
            own = {name: value for name, value in values.items() if name not in {loss, accuracy}}
            run.log({name: value for name, value in own.items() if isinstance(value, int | float | torch.Tensor)})
            if loss is not None or accuracy is not None:
                run.validate(
                    loss=None if loss is None else values[loss], accuracy=None if accuracy is None else values[accuracy]
                )

    def finish(self) -> None:
        """Stop watching, and end a run that was started here."""
        observer, self._observer = self._observer, None
        while self._handles:
            self._handles.pop().remove()
        if observer is not None:
            observer.uninstall()
