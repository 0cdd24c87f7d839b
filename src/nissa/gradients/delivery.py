"""From a step's numbers on the host to measurements; runs on the reader's thread."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from time import time_ns
from typing import TYPE_CHECKING

import numpy as np

from nissa.gradients.folding import fold_names
from nissa.gradients.health import assess
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.gradients.capture import StepNote
    from nissa.hub.measurements import GradientHealth

_folds = lru_cache(maxsize=8)(fold_names)


@dataclass(slots=True)
class Losses:
    """Training losses of an epoch, added up as they arrive."""

    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float | None:
        """Mean over the steps that had one; None where none had. NaN and infinity stay."""
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class Latest:
    """The newest numbers of one environment that are on the host.

    Args:
        by_model: The newest gradients of each watched model.
        epochs: Training losses by the span id of their epoch; only the newest two are kept.
    """

    by_model: dict[str | None, GradientsMeasured] = field(default_factory=dict)
    epochs: dict[int, Losses] = field(default_factory=dict)

    def health(self) -> "GradientHealth | None":
        """Health of the model whose gradients are worst off; None before there are any."""
        known = [sample.health for sample in self.by_model.values() if sample.health.score is not None]
        return min(known, key=lambda health: health.score or 0.0) if known else None


class StepDelivery:
    """Turns what the reader reads into measurements and remembers the newest.

    Args:
        record: Where measurements go.
        most: How many parameters have streams of their own per model.
        now: The clock that steps were timed with, nanoseconds since the Unix epoch.
    """

    def __init__(self, record: Callable[[Measurement], None], *, most: int, now: Callable[[], int] = time_ns) -> None:
        self._record = record
        self._most = most
        self._now = now
        self._latest: dict[str | None, Latest] = {}

    def latest(self, env_id: str | None) -> Latest:
        """Return an environment's newest numbers."""
        return self._latest.setdefault(env_id, Latest())

    def forget(self, env_id: str | None, model_name: str | None) -> None:
        """Forget the newest gradients of a model that is no longer watched."""
        self.latest(env_id).by_model.pop(model_name, None)

    def __call__(self, note: "StepNote", arrays: "list[NDArray[np.generic]]") -> None:
        """Take one step's numbers."""
        arrays, loss = split_loss(note, arrays)
        if loss is not None:
            self._add_loss(note, loss)
        if note.primary:
            self._record(_step(note, loss))
        if note.packed is not None:
            sample = self._sample(note, arrays)
            self.latest(note.env_id).by_model[note.model_name] = sample
            self._record(sample)

    def _add_loss(self, note: "StepNote", loss: float) -> None:
        epochs = self.latest(note.env_id).epochs
        losses = epochs.setdefault(note.epoch_ids.span_id if note.epoch_ids else 0, Losses())
        losses.total += loss
        losses.count += 1
        while len(epochs) > 2:  # noqa: PLR2004 - the epoch under way, and the one that validate() may still ask for
            del epochs[next(iter(epochs))]

    def _sample(self, note: "StepNote", arrays: "list[NDArray[np.generic]]") -> GradientsMeasured:
        assert note.packed is not None  # noqa: S101 - the caller looked
        moments = note.packed.unpack(arrays)
        health = assess(note.packed.names, moments)
        names, groups = _folds(note.packed.names, self._most)
        if len(names) < len(note.packed.names):
            moments = moments.fold(groups, len(names))
        return GradientsMeasured(
            env_id=note.env_id,
            model_name=note.model_name,
            step=note.step,
            time_unix_nano=note.time_unix_nano,
            names=names,
            moments=moments,
            health=health,
            lag=max(0.0, (self._now() - note.time_unix_nano) / 1e9),
            epoch_ids=note.epoch_ids,
        )


def split_loss(
    note: "StepNote", arrays: "list[NDArray[np.generic]]"
) -> "tuple[list[NDArray[np.generic]], float | None]":
    """Return the parts' arrays and the loss, which may be an array of its own or the tail of the last part."""
    if not note.loss_follows:
        return arrays, note.loss
    *parts, last = arrays
    flat = last.reshape(-1)
    loss = float(flat[-1:].view(np.float64)[0])
    return ([*parts, flat[:-1]] if flat.size > 1 else parts), loss


def _step(note: "StepNote", loss: float | None) -> StepMeasured:
    return StepMeasured(
        env_id=note.env_id,
        step=note.step,
        time_unix_nano=note.time_unix_nano,
        duration=note.duration,
        loss=loss,
        learning_rate=note.learning_rate,
        sampled=note.packed is not None,
        epoch_ids=note.epoch_ids,
    )
