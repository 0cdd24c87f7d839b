"""Callback for Lightning: ``Trainer(callbacks=[NissaCallback()])``."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from nissa.gradients.phases import BACKWARD, FORWARD
from nissa.integrations.batch_samples import batch_samples
from nissa.integrations.step_losses import StepLosses
from nissa.integrations.trainer_options import TrainerOptions
from nissa.integrations.trainer_run import TrainerRun
from nissa.run.observation import log_backward_value

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback

    from nissa.run.run import Run
else:
    # The same classes are published as `lightning` and as `pytorch_lightning`; use the one that the script uses.
    _older = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    Callback = import_module("pytorch_lightning" if _older else "lightning.pytorch").Callback


class NissaCallback(TrainerOptions, Callback):
    """Watches the optimizers of a ``Trainer``, and exports losses, epochs, validations, clipping and checkpoints.

    It joins the active run, or starts one at the beginning of ``fit`` and ends it with it. With automatic optimization
    the loss of a step is the mean of its batches, undivided and unscaled whatever the accumulation and precision. With
    manual optimization it is the value passed to ``manual_backward``, where a step has one.

    The arguments are those of `TrainerOptions`.

    Example:
        ``Trainer(max_epochs=10, callbacks=[NissaCallback()]).fit(module)``
    """

    def _prepare(self) -> None:
        self._trainer_run = TrainerRun(self._settings)
        self._losses = StepLosses()
        self._watched: dict[int, str | None] = {}
        self._stepped_in_batch: set[int] = set()

    @property
    def run(self) -> "Run | None":
        """The run; None outside ``fit``."""
        return self._trainer_run.run

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Start or join a run, and watch the optimizers."""
        run = self._trainer_run.begin(run_config=_hyperparameters(pl_module))
        try:
            self._watched = self._trainer_run.watch(pl_module, trainer.optimizers, _scaler(trainer))
        except BaseException as error:
            self._trainer_run.end(error)
            raise
        with self._trainer_run.guard("Lightning callback"):
            patches = self._trainer_run.patches
            patches.replace(trainer, "save_checkpoint", _saving(run, trainer.save_checkpoint))
            patches.replace(trainer.strategy, "training_step", self._timed(trainer.strategy.training_step))
            self._log_clipping(trainer)

    def _timed(self, training_step: "Callable[..., Any]") -> "Callable[..., Any]":
        """Return ``training_step``, which calls no hook of the model, as the forward phase of the step."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._trainer_run.phase(FORWARD):
                return training_step(*args, **kwargs)

        return timed

    def on_train_epoch_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:  # noqa: ARG002
        """Begin an epoch."""
        with self._trainer_run.guard("Lightning callback") as run:
            if run is not None:
                run.begin_epoch(trainer.current_epoch)

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Forget the optimizers that have made a step in the previous batch."""
        self._stepped_in_batch.clear()

    def on_train_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the samples of a batch."""
        del trainer, pl_module, outputs, batch_idx
        with self._trainer_run.guard("Lightning callback") as run:
            samples = batch_samples(batch)
            if run is not None and samples is not None:
                run.log_items(samples=samples)

    def on_before_backward(self, trainer: "Trainer", pl_module: "LightningModule", loss: torch.Tensor) -> None:
        """Keep the loss of a backward pass for the step that uses its gradients."""
        with self._trainer_run.guard("Lightning callback") as run:
            if run is not None:
                self._losses.add(_unscaled(loss, trainer, automatic=pl_module.automatic_optimization))
        self._trainer_run.begin_phase(BACKWARD)

    def on_after_backward(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """End the backward phase of the step."""
        del trainer, pl_module
        self._trainer_run.end_phase(BACKWARD)

    def on_before_optimizer_step(
        self, trainer: "Trainer", pl_module: "LightningModule", optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the loss of the step that follows."""
        del trainer
        with self._trainer_run.guard("Lightning callback") as run:
            count, total = self._losses.count, self._losses.take()
            inner = getattr(optimizer, "optimizer", optimizer)
            if run is None or total is None or id(inner) not in self._watched:
                return
            # An optimizer such as LBFGS evaluates the closure several times; the first value is that of the gradients
            # that are measured.
            if pl_module.automatic_optimization and id(inner) in self._stepped_in_batch:
                return
            self._stepped_in_batch.add(id(inner))
            self._log_loss(run, total, count, self._watched[id(inner)], automatic=pl_module.automatic_optimization)

    @staticmethod
    def _log_loss(run: "Run", total: torch.Tensor, count: int, name: str | None, *, automatic: bool) -> None:
        if automatic:
            run.log_loss(total / count, model=name)
        elif count == 1:
            run.log_loss(total, model=name)
        else:  # the loop may have divided each of them, which is not known
            log_backward_value(run, total, model=name)

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:  # noqa: ARG002
        """Log the results of a validation during ``fit``."""
        with self._trainer_run.guard("Lightning callback") as run:
            if run is None or trainer.sanity_checking:
                return
            metrics = trainer.callback_metrics
            loss, accuracy = self._names.find(metrics)
            run.validate(
                loss=None if loss is None else metrics[loss], accuracy=None if accuracy is None else metrics[accuracy]
            )

    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:  # noqa: ARG002
        """Log the other metrics of the module, and end the epoch."""
        with self._trainer_run.guard("Lightning callback") as run:
            if run is not None:
                metrics = trainer.callback_metrics
                exported = self._names.find(metrics)
                run.log({name: value for name, value in metrics.items() if name not in exported})
                run.end_epoch()

    def on_exception(self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException) -> None:  # noqa: ARG002
        """End the run with the exception that interrupts training."""
        self._end(exception)

    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:  # noqa: ARG002
        """End the run after training; the last checkpoint is saved by then."""
        if stage == "fit":
            self._end(None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run, which the trainer stores in its checkpoints."""
        state = self._trainer_run.state()
        return {} if state is None else {"run": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the run of a checkpoint that the trainer has loaded, if no run is active."""
        self._trainer_run.resume = state_dict.get("run")

    def _end(self, error: BaseException | None) -> None:
        self._losses.take()
        self._watched.clear()
        self._trainer_run.end(error)

    def _log_clipping(self, trainer: "Trainer") -> None:
        """Log the norm before clipping by routing the plugin's call through the run, which clips the same way."""
        plugin = trainer.precision_plugin
        base = next(each for each in type(plugin).__mro__ if "clip_grad_by_norm" in vars(each))
        if base.__name__ != "Precision":  # sharded strategies clip in their own way
            return

        def clip_grad_by_norm(optimizer: torch.optim.Optimizer, clip_val: float = 0.0) -> None:
            inner = getattr(optimizer, "optimizer", optimizer)
            run = self._trainer_run.run
            if run is None:
                torch.nn.utils.clip_grad_norm_(plugin.main_params(optimizer), clip_val)
            else:
                run.clip_grad_norm_(plugin.main_params(optimizer), clip_val, model=self._watched.get(id(inner)))

        self._trainer_run.patches.replace(plugin, "clip_grad_by_norm", clip_grad_by_norm)


def _saving(run: "Run", save: "Callable[..., None]") -> "Callable[..., None]":
    """Return ``save_checkpoint`` within a ``checkpoint`` span."""

    def save_checkpoint(filepath: "str | os.PathLike[str]", *args: Any, **kwargs: Any) -> None:
        with run.checkpoint(filepath):
            save(filepath, *args, **kwargs)

    return save_checkpoint


def _hyperparameters(pl_module: "LightningModule") -> dict[str, Any]:
    """Return the saved hyperparameters that are plain values."""
    return {name: value for name, value in pl_module.hparams.items() if isinstance(value, str | int | float | bool)}


def _scaler(trainer: "Trainer") -> torch.amp.GradScaler | None:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if isinstance(scaler, torch.amp.GradScaler) else None


def _unscaled(loss: torch.Tensor, trainer: "Trainer", *, automatic: bool) -> torch.Tensor:
    """Return the loss as ``training_step`` returned it: without loss scale and division for accumulation."""
    value, scaler = loss.detach(), _scaler(trainer)
    if scaler is not None:
        value = value / scaler.scale(torch.ones_like(value))  # on the device: get_scale() would wait for it
    return value * trainer.accumulate_grad_batches if automatic else value
