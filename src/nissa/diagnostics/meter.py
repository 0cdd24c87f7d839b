"""Loss, accuracy and confusion of a validation, added up on the device and copied to the host once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nissa.errors import ConfigurationError
from nissa.kernels.transfer import to_host

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from nissa.diagnostics.confusion_metric import ConfusionMetric

_logger = logging.getLogger("nissa")

MAX_JOINT = 1024
"""Maximum number of classes with a confusion matrix, whose size grows with their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Result of a validation. Unmeasured values are None or empty, never 0.

    Args:
        loss: Mean over all counted elements of the batches with a loss.
        accuracy: Correct elements over all counted ones, as a fraction.
        per_class_accuracy: Accuracy by class name, as a fraction; a class without examples is absent.
        per_class_loss: Mean loss by class name, if losses of single elements were passed; a class without examples is
            absent.
        per_class_support: Number of elements by class name, 0 for a class without any.
        confusion: Number of elements by true class (rows) and predicted class; None above 1,024 classes.
        class_names: Names in the order of the classes.
        examples: Number of counted elements.
        ignored: Number of elements excluded because their target is ``ignore_index``.
        out_of_range: Number of elements excluded because their target or prediction is not a valid class.
    """

    loss: float | None = None
    accuracy: float | None = None
    per_class_accuracy: dict[str, float] = field(default_factory=dict)
    per_class_loss: dict[str, float] = field(default_factory=dict)
    per_class_support: dict[str, int] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] | None = None
    class_names: tuple[str, ...] = ()
    examples: int = 0
    ignored: int = 0
    out_of_range: int = 0


class ValidationMeter:
    """Validation metrics, accumulated on the device; ``update()`` never synchronizes with it.

    Requires torchmetrics: ``pip install "nissa[metrics]"``.

    Args:
        classes: Number of classes, at least two, or their names.
        device: Device of the sums, by default that of the first logits.
        ignore_index: Target of elements to exclude, such as -100.

    Raises:
        ConfigurationError: torchmetrics is missing, or the classes are invalid.
    """

    def __init__(
        self,
        classes: int | Sequence[str],
        *,
        device: "torch.device | str | None" = None,
        ignore_index: int | None = None,
    ) -> None:
        self.class_names = _names(classes)
        self._make: type[ConfusionMetric] = _library()
        self._device = None if device is None else torch.device(device)
        self._ignored = ignore_index
        self._metric: ConfusionMetric | None = None

    def update(self, logits: "Tensor", targets: "Tensor", loss: "Tensor | float | None" = None) -> None:
        """Add a batch.

        Args:
            logits: Scores ``(N, C)`` or ``(N, C, ...)``. Alternatively, in the shape of the targets: predicted classes as
                integers, or with two classes the floating-point logits of the second one, predicted above 0.
            targets: Classes ``(N)`` or ``(N, ...)``.
            loss: Mean over the counted elements of the batch, or a loss per element in the shape of the targets.

        Raises:
            ConfigurationError: Shapes, dtypes or devices do not match.
        """
        logits, targets = logits.detach(), targets.detach()
        metric = self._ready(logits.device)
        predicted = self._predicted(logits, targets)
        if targets.device != metric.counts.device or logits.device != metric.counts.device:
            raise ConfigurationError(
                f"The logits are on {logits.device} and the targets on {targets.device}, but this meter counts on "
                f"{metric.counts.device}; move them there, or create a meter for each device."
            )
        if isinstance(loss, torch.Tensor):
            loss = _fitting(loss.detach(), targets)
        metric.update(predicted, targets, loss, self._ignored)

    def result(self, wait: float | None = None, *, sync: bool = False, group: "ProcessGroup | None" = None) -> Measured:
        """Return the result over all batches so far, after one copy from the device.

        Args:
            wait: Maximum time to wait for the device, in seconds; None waits without a limit.
            sync: Sum over all ranks first, in one ``all_reduce``. All ranks of the group must call this.
            group: Process group of ``sync``, by default all ranks.

        Raises:
            TimeoutError: The device did not finish in time.
        """
        together = sync and torch.distributed.is_available() and torch.distributed.is_initialized()
        if self._metric is None and not together:
            return Measured(class_names=self.class_names)
        metric = self._ready(_own_device(group) if self._metric is None else self._metric.counts.device)
        found = _parts(metric, wait, group, together=together)
        return self._measured(*found, joint=metric.joint)

    def reset(self) -> None:
        """Reset all sums."""
        if self._metric is not None:
            with torch.inference_mode(mode=False):
                self._metric.reset()

    def _ready(self, device: torch.device) -> "ConfusionMetric":
        if self._metric is None:
            number = len(self.class_names)
            # Create the sums outside inference mode, since inference tensors cannot be updated in place outside it.
            with torch.inference_mode(mode=False):
                self._metric = self._make(number, joint=number <= MAX_JOINT, device=_indexed(self._device or device))
        return self._metric

    def _predicted(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        number, scores = len(self.class_names), logits.is_floating_point()
        if logits.shape == targets.shape and not scores:
            return logits
        if logits.shape == targets.shape and number == 2:  # noqa: PLR2004 - the two classes of "binary"
            return logits > 0
        if scores and logits.ndim > 1 and logits.shape[1] == number and _without_classes(logits) == targets.shape:
            return logits.argmax(1)
        raise ConfigurationError(
            f"Logits of shape {tuple(logits.shape)} and {logits.dtype} do not fit targets of shape "
            f"{tuple(targets.shape)} and {number} classes. Pass scores (N, {number}, ...) for targets (N, ...), with "
            "the classes in the second dimension, or predicted classes as integers in the shape of the targets."
        )

    def _measured(self, counts: "NDArray[Any]", losses: "NDArray[Any]", *, joint: bool) -> Measured:
        ignored, out_of_range = (int(each) for each in counts[-2:])
        if out_of_range:
            _logger.warning(
                "%d elements of a validation were skipped: their target or prediction is not one of the %d classes. "
                "Pass ignore_index to skip some on purpose.",
                out_of_range,
                len(self.class_names),
            )
        table = counts[:-2].reshape(len(self.class_names), -1)
        support, hits = table.sum(axis=1), np.diagonal(table) if joint else table[:, 1]
        examples = int(support.sum())
        sums, weights = losses[2:].reshape(2, -1)
        return Measured(
            loss=float(losses[0] / losses[1]) if losses[1] else None,
            accuracy=int(hits.sum()) / examples if examples else None,
            per_class_accuracy=self._shares(hits, support),
            per_class_loss=self._shares(sums, weights),
            per_class_support=dict(zip(self.class_names, support.tolist(), strict=True)),
            confusion=tuple(map(tuple, table.tolist())) if joint else None,
            class_names=self.class_names,
            examples=examples,
            ignored=ignored,
            out_of_range=out_of_range,
        )

    def _shares(self, parts: "NDArray[Any]", wholes: "NDArray[Any]") -> dict[str, float]:
        named = zip(self.class_names, parts.tolist(), wholes.tolist(), strict=True)
        return {name: part / whole for name, part, whole in named if whole}


def _names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str):
        raise ConfigurationError(f"Pass the names of the classes as a list, not as one string {classes!r}.")
    names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))
    if len(names) < 2 or len(set(names)) < len(names):  # noqa: PLR2004 - a classifier needs two classes
        raise ConfigurationError(f"A meter needs at least two classes with different names, not {classes!r}.")
    return names


def _library() -> "type[ConfusionMetric]":
    try:
        made: type[ConfusionMetric] = import_module("nissa.diagnostics.confusion_metric").ConfusionMetric
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torchmetrics":
            raise
        raise ConfigurationError('ValidationMeter needs torchmetrics: pip install "nissa[metrics]".') from error
    return made


def _indexed(device: torch.device) -> torch.device:
    """Return a device with its index: ``cuda`` means the current device, but is not equal to ``cuda:0``."""
    return torch.empty(0, device=device).device


def _own_device(group: "ProcessGroup | None") -> torch.device:
    """Return the device with which a rank without batches joins the ``all_reduce``."""
    return torch.device("cuda" if "nccl" in torch.distributed.get_backend(group) else "cpu")


def _without_classes(logits: "Tensor") -> torch.Size:
    return logits.shape[:1] + logits.shape[2:]


def _fitting(loss: "Tensor", targets: "Tensor") -> "Tensor":
    if loss.shape == targets.shape:
        return loss
    if loss.numel() != 1:
        raise ConfigurationError(
            f"A loss of shape {tuple(loss.shape)} is neither one number nor one for each of the targets "
            f"{tuple(targets.shape)}; pass its mean, or use reduction='none'."
        )
    return loss.reshape(())


def _parts(
    metric: "ConfusionMetric", wait: float | None, group: "ProcessGroup | None", *, together: bool
) -> "tuple[NDArray[Any], NDArray[Any]]":
    """Return counts and losses on the host."""
    number = len(metric.counts)
    if together:
        # Counts are exact in float64 below 2**53, so that one collective suffices for counts and losses.
        packed = torch.cat((metric.counts.to(torch.float64), metric.losses))
        torch.distributed.all_reduce(packed, group=group)
        found: NDArray[Any] = to_host(packed, wait)
        return found[:number].astype(np.int64), found[number:]
    found = to_host(metric.packed(), wait)
    losses = found[number:]
    real = metric.losses.dtype == torch.float64
    return found[:number], losses.view(np.float64) if real else losses.astype(np.int32).view(np.float32)
