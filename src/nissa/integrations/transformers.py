"""Callback for Hugging Face Transformers: ``Trainer(callbacks=[NissaCallback()])``."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback

from nissa.integrations.callers import calling
from nissa.integrations.metric_names import ValidationNames
from nissa.integrations.step_losses import StepLosses
from nissa.integrations.trainer_run import TrainerRun

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from nissa.run.run import Run

_logger = logging.getLogger("nissa")


class NissaCallback(TrainerCallback):  # type: ignore[misc]  # transformers are not analysed
    """Watches the optimizer of a ``Trainer``, and exports losses, epochs, evaluations, clipping and checkpoints.

    It joins the active run, or starts one at the beginning of ``train``. The loss of a step is the one that the trainer
    adds to its logs: the mean over the batches, or tokens, that the step accumulates. A run that was started here stays
    open after ``train``, so that an ``evaluate()`` that follows belongs to it. It ends with the process, at the next
    ``train``, or with ``nissa.current_run().close()``.

    Args:
        profile: As for `nissa.start`.
        validation_loss: Key of the evaluation's loss; by default ``eval_loss`` and the like.
        validation_accuracy: Key of the accuracy, a fraction; by default ``eval_accuracy`` and the like.
        **settings: Further arguments of `nissa.start`. They are not used if a run is active.

    Example:
        ``Trainer(model, args, train_dataset=data, callbacks=[NissaCallback()]).train()``
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        validation_loss: str | None = None,
        validation_accuracy: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._names = ValidationNames(validation_loss, validation_accuracy)
        self._trainer_run = TrainerRun({"profile": profile, **settings})
        self._losses = StepLosses()

    @property
    def run(self) -> "Run | None":
        """The run; None before ``train``."""
        return self._trainer_run.run

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Start or join a run, and watch the optimizer."""
        del args, state, control
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
        """Read the loss of each batch, and the norm before clipping, where the trainer computes them."""
        losses, patches, train = self._losses, self._trainer_run.patches, trainer.training_step

        def training_step(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = train(*args, **kwargs)
            with self._trainer_run.guard("transformers callback"):
                losses.add(loss)
            return loss

        patches.replace(trainer, "training_step", training_step)

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
