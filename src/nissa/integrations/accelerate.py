"""Tracker for Hugging Face Accelerate: ``Accelerator(log_with=NissaTracker())``."""

from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

import nissa
from nissa.integrations.callers import calling
from nissa.integrations.clipping import clipping
from nissa.integrations.metric_names import ValidationNames
from nissa.integrations.zero_code.observer import Observer

if TYPE_CHECKING:
    from nissa.run.run import Run


class NissaTracker(GeneralTracker):
    """Watches the optimizers that an ``Accelerator`` prepares, and exports what the script logs to its trackers.

    ``init_trackers`` joins the active run, or starts one, and ``end_training`` ends it. Each optimizer is watched from its
    first step on. The loss of a step is the value passed to ``accelerator.backward``, averaged over the batches that the
    step accumulates. Epochs are the iterations over the data that steps are made in. Logged metrics with names such as
    ``eval_loss`` and ``eval_accuracy`` are results of a validation.

    Args:
        profile: As for `nissa.start`.
        validation_loss: Name under which the script logs the validation loss; by default ``eval_loss`` and the like.
        validation_accuracy: Name of the accuracy, a fraction; by default ``eval_accuracy`` and the like.
        **settings: Further arguments of `nissa.start`. They are not used if a run is active.

    Example:
        ``accelerator = Accelerator(log_with=NissaTracker())``, then ``accelerator.init_trackers("digits")``
    """

    name = "nissa"
    requires_logging_directory = False
    main_process_only = False

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
        self._settings = {"profile": profile, **settings}
        self._observer: Observer | None = None

    @property
    def tracker(self) -> "Run | None":
        """The run; None before ``init_trackers`` and after ``end_training``."""
        return None if self._observer is None else self._observer.run

    def start(self) -> None:
        """Start or join a run, and watch each optimizer from its first step on."""
        self.finish()
        active = nissa.current_run()
        run = nissa.start(**self._settings) if active is None else active
        self._observer = observer = Observer(run, owned=active is None)
        observer.install()
        accelerator = calling(Accelerator)
        if accelerator is not None:
            self._observe(accelerator, observer)

    def _observe(self, accelerator: Any, observer: Observer) -> None:
        """Observe the loss before it is divided for accumulation and scaled, and the norm before clipping."""
        backward = accelerator.backward

        def observed(loss: torch.Tensor, **kwargs: Any) -> None:
            with observer.losses.logged(loss):
                backward(loss, **kwargs)

        observer.patches.replace(accelerator, "backward", observed)
        observer.patches.replace(accelerator, "clip_grad_norm_", clipping(accelerator, lambda: self.tracker))

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
        if observer is not None:
            observer.uninstall()
