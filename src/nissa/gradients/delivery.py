"""From a step's numbers on the host to measurements; runs on the reader's thread."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite, isnan, nan, sqrt
from time import time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.gradients.folding import StreamBound
from nissa.gradients.grouping import largest
from nissa.gradients.health import assess
from nissa.gradients.notes import (
    CLIP_NORM,
    INTERVAL,
    LOSS,
    OVERFLOW,
    OVERHEAD,
    RATE,
    SKIPPED_CALLS,
    SKIPPED_SAMPLES,
)
from nissa.gradients.ratios import Energies, energies, seed_ratios
from nissa.gradients.skips import total
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured, StepSkipped
from nissa.kernels.moments import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.gradients.capture import Statistics
    from nissa.gradients.notes import StepNote
    from nissa.hub.measurements import GradientHealth

_logger = logging.getLogger("nissa")


@dataclass(slots=True)
class Losses:
    """Training losses of an epoch, added up as they arrive.

    Args:
        m2: Sum of the squared distances of the finite ones from their mean (Welford's).
        finite: How many of them are finite.
        center: The mean of those.
        missed: Steps of the epoch whose losses, if they had any, were never delivered.
    """

    total: float = 0.0
    count: int = 0
    m2: float = 0.0
    finite: int = 0
    center: float = 0.0
    missed: int = 0

    def add(self, loss: float) -> None:
        """Add the loss of one step."""
        self.total += loss
        self.count += 1
        if isfinite(loss):
            self.finite += 1
            distance = loss - self.center
            self.center += distance / self.finite
            self.m2 += distance * (loss - self.center)

    @property
    def mean(self) -> float | None:
        """Mean over the steps that had one; None where none had. NaN and infinity stay."""
        return self.total / self.count if self.count else None

    @property
    def noise(self) -> float | None:
        """Standard deviation (over their number); None below two steps, NaN where one of them was not finite."""
        if self.count < 2:  # noqa: PLR2004 - one loss has no spread
            return None
        return sqrt(self.m2 / self.finite) if self.finite == self.count else nan


@dataclass(slots=True)
class Latest:
    """The newest numbers of one environment that are on the host.

    Args:
        by_model: The newest gradients of each watched model.
        energies: What seeds and host contribute to them, for each watched model.
        epochs: Training losses by the span id of their epoch; only the newest two are kept.
        seeds: Health of what was newest measured on each growing seed, by slot and watched model.
        step: The environment's newest step.
        learning_rate: Of that step.
    """

    by_model: dict[str | None, GradientsMeasured] = field(default_factory=dict)
    energies: dict[str | None, Energies] = field(default_factory=dict)
    epochs: dict[int, Losses] = field(default_factory=dict)
    seeds: "dict[str | None, dict[str, GradientHealth]]" = field(default_factory=dict)
    step: int | None = None
    learning_rate: float | None = None

    def seed(self, slot: str | None) -> "GradientHealth | None":
        """Health of the seed in a slot; None where its gradients were not measured."""
        found = [seeds[slot] for seeds in list(self.seeds.values()) if slot in seeds] if slot is not None else []
        return found[-1] if found else None

    def ratios(self) -> dict[str, float]:
        """How large the gradients of growing seeds are beside those of their host, by slot."""
        return {slot: each for sample in list(self.by_model.values()) for slot, each in sample.seed_ratios.items()}

    def health(self) -> "GradientHealth | None":
        """Health of the model whose gradients are worst off; None before there are any."""
        known = [sample.health for sample in self.by_model.values() if sample.health.score is not None]
        return min(known, key=lambda health: health.score or 0.0) if known else None


class StepDelivery:
    """Turns what the reader reads into measurements and remembers the newest.

    Args:
        record: Where measurements go.
        most: How many streams a model may have.
        top: How many of them, those of the largest norm, are exported with each sample; None exports all.
        now: The clock that steps were timed with, nanoseconds since the Unix epoch.
    """

    def __init__(
        self,
        record: Callable[[Measurement], None],
        *,
        most: int,
        top: int | None = None,
        now: Callable[[], int] = time_ns,
    ) -> None:
        self._record = record
        self._bound = StreamBound(most)
        self._top = top
        self._now = now
        self._latest: dict[str | None, Latest] = {}
        self._failed = False

    def latest(self, env_id: str | None) -> Latest:
        """Return an environment's newest numbers."""
        return self._latest.setdefault(env_id, Latest())

    def forget(self, env_id: str | None, model_name: str | None) -> None:
        """Forget the newest gradients of a model that is no longer watched."""
        latest = self.latest(env_id)
        latest.by_model.pop(model_name, None)
        latest.energies.pop(model_name, None)
        latest.seeds.pop(model_name, None)

    def __call__(self, note: "StepNote", arrays: "list[NDArray[np.generic]]") -> None:
        """Take one step's numbers."""
        rows, moved = note.parcel.unwrap(arrays)
        numbers = {**note.known, **moved}
        latest = self.latest(note.env_id)
        skipped = total(numbers, SKIPPED_CALLS)
        self._count_skipped(note, skipped + note.unbegun)
        if note.skipped or numbers.get(OVERFLOW, 0.0) != 0.0:
            return
        step = note.step - skipped
        missed = max(0, step - note.delivered.steps)
        if note.primary:
            self._add_loss(note, numbers.get(LOSS), missed)
            latest.step, latest.learning_rate = step, numbers.get(RATE)
        self._record(_step(note, step, numbers, missed=missed))
        note.delivered.steps = step + 1
        if note.sampled is not None:
            found = note.sampled.unpack(rows)
            if found.failed:  # without them neither norm nor health would be true, and streams would seem to end
                self._warn_failed(found.failed)
            else:
                self._sample(note, step, found, note.samples - total(numbers, SKIPPED_SAMPLES))

    def _count_skipped(self, note: "StepNote", skipped: int) -> None:
        """Record the skipped steps that no row before this one has."""
        more = skipped - note.delivered.skipped
        if more > 0:
            note.delivered.skipped = skipped
            self._record(
                StepSkipped(
                    env_id=note.env_id, model_name=note.model_name, time_unix_nano=note.time_unix_nano, count=more
                )
            )

    def _warn_failed(self, parameters: int) -> None:
        if not self._failed:
            self._failed = True
            _logger.warning(
                "Gradients of a step are absent, since a rank could not measure its part of %d sharded parameters; "
                "the log of that rank says why. Training is not affected.",
                parameters,
            )

    def _add_loss(self, note: "StepNote", loss: float | None, missed: int) -> None:
        epochs = self.latest(note.env_id).epochs
        if loss is None and not missed:
            return
        losses = epochs.setdefault(note.epoch_ids.span_id if note.epoch_ids else 0, Losses())
        losses.missed += missed
        if loss is not None:
            losses.add(loss)
        while len(epochs) > 2:  # noqa: PLR2004 - the epoch under way, and the one that validate() may still ask for
            del epochs[next(iter(epochs))]

    def _sample(self, note: "StepNote", step: int, found: "Statistics", sample: int) -> None:
        latest = self.latest(note.env_id)
        mine = latest.energies[note.model_name] = energies(found.moments, found.seeds, note.epoch_ids)
        latest.seeds[note.model_name] = {
            slot: assess(tuple(found.names[row] for row in rows), found.moments.select(rows))
            for slot, rows in found.seeds.items()
        }
        # A copy: the training thread forgets a model when its watch is closed.
        others = [each for model, each in list(latest.energies.items()) if model != note.model_name]
        common: dict[str, Any] = {
            "env_id": note.env_id,
            "model_name": note.model_name,
            "step": step,
            "time_unix_nano": note.time_unix_nano,
            "epoch_ids": note.epoch_ids,
            "health": assess(found.names, found.moments),
            "lag": max(0.0, (self._now() - note.time_unix_nano) / 1e9),
            "idle": note.sampled.idle if note.sampled else (),
            "seed_ratios": seed_ratios(mine, others),
            "missed": max(0, sample - note.delivered.samples),
        }
        note.delivered.samples = sample + 1
        everything = np.arange(len(found.names))
        seen = latest.by_model[note.model_name] = GradientsMeasured(**common, **self._streams(found, everything))
        if note.delivered.closed:  # checked last: the watch may have been closed on another thread meanwhile
            self.forget(note.env_id, note.model_name)
        if found.exported.all():
            self._record(seen)
        elif found.exported.any():  # what the other rows say, another rank exports
            self._record(GradientsMeasured(**common, **self._streams(found, np.flatnonzero(found.exported))))

    def _streams(self, found: "Statistics", rows: "NDArray[np.intp]") -> dict[str, Any]:
        """Return what is told of some rows, folded where they are many."""
        whole = len(rows) == len(found.names)  # the usual case, for which nothing has to be copied
        names, groups = self._bound(found.streams if whole else tuple(found.streams[row] for row in rows))
        moments = found.moments if whole else found.moments.select(rows)
        squares = found.squares if whole else found.squares[rows]
        if len(names) < len(rows):
            moments = moments.fold(groups, len(names))
            folded = np.zeros((len(names), squares.shape[1]))
            np.add.at(folded, groups, squares)
            squares = folded
        norms = np.sqrt(squares)
        measured = norms.shape[1]
        return {
            "names": names,
            "moments": moments,
            "shown": None if self._top is None else largest(moments, self._top),
            "weight_norms": norms[:, 0] if measured else None,
            "update_ratios": ratio(norms[:, 1], norms[:, 0]) if measured > 1 else None,
        }


def _step(note: "StepNote", step: int, numbers: dict[str, float], *, missed: int) -> StepMeasured:
    norm = numbers.get(CLIP_NORM)
    return StepMeasured(
        env_id=note.env_id,
        model_name=note.model_name,
        primary=note.primary,
        step=step,
        time_unix_nano=note.time_unix_nano,
        duration=note.duration,
        loss=numbers.get(LOSS),
        learning_rate=numbers.get(RATE),
        sampled=note.sampled is not None,
        epoch_ids=note.epoch_ids,
        clip_norm=norm,
        clip_factor=None if norm is None or note.clip_limit is None else clip_factor(norm, note.clip_limit),
        overhead=numbers.get(OVERHEAD),
        sampling_interval=numbers.get(INTERVAL),
        missed=missed,
    )


def clip_factor(norm: float, limit: float) -> float:
    """Return what ``torch.nn.utils.clip_grad_norm_`` multiplies gradients with: ``limit / (norm + 1e-6)``, at most 1."""
    factor = limit / (norm + 1e-6)
    return factor if isnan(factor) else min(1.0, factor)
