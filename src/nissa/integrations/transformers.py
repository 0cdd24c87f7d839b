"""Callback for Hugging Face Transformers: ``Trainer(callbacks=[NissaCallback()])``."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from nissa.integrations.batch_samples import batch_samples
from nissa.integrations.callers import calling
from nissa.integrations.clipping import clipping
from nissa.integrations.step_losses import StepLosses
from nissa.integrations.trainer_options import TrainerOptions
from nissa.integrations.trainer_run import TrainerRun

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from nissa.run.run import Run

_logger = logging.getLogger("nissa")

_OF_THE_TRAINER: Final = frozenset({"loss", "grad_norm", "learning_rate", "epoch", "total_flos", "train_loss"})
_RESUMED: Final = "resumed"
"""Attribute under which a checkpoint has the state of the run."""
_PLAIN: Final = str | int | float | bool
_SPEED: Final = ("_runtime", "_per_second", "_preparation_time")


class NissaCallback(TrainerOptions, TrainerCallback, ExportableState):
    """Watches the optimizer of a ``Trainer``, and exports losses, epochs, evaluations, clipping and checkpoints.

    It joins the active run, or starts one at the beginning of ``train``. The loss of a step is the one that the trainer
    adds to its logs: the mean over the batches, or tokens, that the step accumulates. A run that was started here stays
    open after ``train``, so that an ``evaluate()`` that follows belongs to it. It ends with the process, at the next
    ``train``, or with ``nissa.current_run().close()``. ``train(resume_from_checkpoint=...)`` continues the run that the
    checkpoint was saved in.

    The arguments are those of `TrainerOptions`.

    Example:
        ``Trainer(model, args, train_dataset=data, callbacks=[NissaCallback()]).train()``
    """

    def _prepare(self) -> None:
        self._trainer_run = TrainerRun(self._settings)
        self._losses = StepLosses()

    @property
    def run(self) -> "Run | None":
        """The run; None before ``train``."""
        return self._trainer_run.run

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the state of the run, which the trainer stores in its checkpoints."""
        run = self._trainer_run.state()
        return {"args": self._plain_arguments(), "attributes": {} if run is None else {_RESUMED: run}}

    def _plain_arguments(self) -> dict[str, Any]:
        """Return the arguments that a checkpoint can store."""
        names = {"validation_loss": self._names.loss, "validation_accuracy": self._names.accuracy}
        return {key: value for key, value in {**self._settings, **names}.items() if isinstance(value, _PLAIN)}

    @property
    def resumed(self) -> "Mapping[str, Any] | None":
        """State of a run that the next training continues; the trainer sets it if it restores callbacks."""
        return self._trainer_run.resume

    @resumed.setter
    def resumed(self, state: "Mapping[str, Any]") -> None:
        self._trainer_run.resume = state

    def _continue(self, state: "TrainerState | None") -> None:
        """Continue the run of a checkpoint that the trainer has loaded. A training from the start has made no step."""
        if state is None or not state.global_step or self.resumed is not None:
            return
        stored = state.stateful_callbacks.get(type(self).__name__) or {}
        first = stored[0] if isinstance(stored, list) else stored
        self._trainer_run.resume = first.get("attributes", {}).get(_RESUMED)

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Start or join a run, or continue that of a checkpoint, and watch the optimizer."""
        del args, control
        self._continue(state)
        self._trainer_run.begin()
        trainer = calling(Trainer)
        try:
            scaler = None if trainer is None else trainer.accelerator.scaler
            self._trainer_run.watch(kwargs["model"], [kwargs["optimizer"]], scaler)
        except BaseException as error:
            self._trainer_run.end(error)
            raise
        if trainer is None:
            _logger.warning("The losses of steps are absent: no transformers.Trainer calls this callback.")
            return
        with self._trainer_run.guard("transformers callback"):
            self._observe(trainer)

    def _observe(self, trainer: Any) -> None:
        """Read the loss and size of each batch, and the norm before clipping, where the trainer computes them."""
        losses, patches, train = self._losses, self._trainer_run.patches, trainer.training_step

        def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = train(*args, **kwargs)
            with self._trainer_run.guard("transformers callback") as run:
                losses.add(loss)
                if run is not None:
                    run.log_items(_items(kwargs["inputs"] if "inputs" in kwargs else args[1]))
            return loss

        patches.replace(trainer, "training_step", training_step)
        patches.replace(trainer.accelerator, "clip_grad_norm_", clipping(trainer.accelerator, lambda: self.run))

    def on_log(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Log the metrics of the script: those that the trainer adds itself are exported already, or are no metrics."""
        del args, state, control
        with self._trainer_run.guard("transformers callback") as run:
            logs = kwargs.get("logs") or {}
            exported = {*self._names.find(logs), *_OF_THE_TRAINER}
            own = {
                name: value
                for name, value in logs.items()
                if isinstance(value, int | float) and name not in exported and not name.endswith(_SPEED)
            }
            if run is not None and own:
                run.log(own)

    def on_epoch_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: Any
    ) -> None:
        """Begin an epoch."""
        del args, control
        with self._trainer_run.guard("transformers callback") as run:
            if run is not None:
                run.begin_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Log the loss of the step that follows."""
        with self._trainer_run.guard("transformers callback") as run:
            total = self._losses.take()
            if run is not None and total is not None:
                run.log_loss(total)  # the trainer divides each batch's part itself

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """End the epoch. The evaluation that follows belongs to it."""
        with self._trainer_run.guard("transformers callback") as run:
            if run is not None:
                run.end_epoch()

    def on_evaluate(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """Log the results of an evaluation."""
        del args, state, control
        with self._trainer_run.guard("transformers callback") as run:
            if run is None:
                return
            loss, accuracy = self._names.find(metrics)
            run.validate(
                loss=None if loss is None else metrics[loss], accuracy=None if accuracy is None else metrics[accuracy]
            )

    def on_save(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: Any) -> None:
        """Mark a checkpoint. The trainer reports it when it has been saved, so that its duration is absent."""
        del control
        with self._trainer_run.guard("transformers callback") as run:
            if run is not None:
                with run.checkpoint(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"):
                    pass

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop watching. A run that was started here stays open for an evaluation."""
        self._losses.take()
        self._trainer_run.stop_watching()


def _items(inputs: Mapping[str, Any]) -> dict[str, int | torch.Tensor]:
    """Return the numbers of samples and, for a language model, of tokens."""
    found: dict[str, int | torch.Tensor] = {}
    samples = batch_samples(dict(inputs))
    if samples is not None:
        found["samples"] = samples
    if "attention_mask" in inputs:
        found["tokens"] = inputs["attention_mask"].sum()
    elif "input_ids" in inputs:
        found["tokens"] = inputs["input_ids"].numel()
    return found
