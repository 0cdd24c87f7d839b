"""Conversion of a step's numbers into measurements; runs on the worker thread."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from time import time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from nissa.gradients.folding import StreamLimiter
from nissa.gradients.grouping import largest
from nissa.gradients.health import assess
from nissa.gradients.logged_values import items_in, scalars_in
from nissa.gradients.losses import RECENT, Losses, RecentLosses
from nissa.gradients.ratios import SumsOfSquares, seed_ratios, sums_of_squares
from nissa.gradients.replica_reporting import publish
from nissa.gradients.skips import total
from nissa.gradients.step_metadata import (
    BACKWARD,
    CLIP_NORM,
    INTERVAL,
    LOSS,
    OVERFLOW,
    OVERHEAD,
    RATE,
    SIGNAL,
    SKIPPED_CALLS,
    SKIPPED_SAMPLES,
    LoggedMetadata,
)
from nissa.hub.measurements import (
    GradientHealth,
    GradientsMeasured,
    LoggedMeasured,
    Measurement,
    StepMeasured,
    StepSkipped,
    WholeModelMeasured,
)
from nissa.kernels.moments import ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.events import SpanIds
    from nissa.gradients.capture import Statistics
    from nissa.gradients.step_metadata import RowMetadata, StepMetadata

_logger = logging.getLogger("nissa")


@dataclass(slots=True)
class LatestStatistics:
    """Newest delivered statistics of one environment.

    Args:
        by_model: Newest gradients of each watched model.
        sums_of_squares: Sums of squares of seeds and host, for each watched model.
        epochs: Training losses by the span id of their epoch; limited to the newest two.
        recent: Newest training losses of a loop without epochs.
        seeds: Newest health of each growing seed, by watched model and slot.
        wholes: Newest health of each model with several optimizers, by the names of these.
        step: Newest step of the environment.
        learning_rate: Learning rate of that step.
        items: Items since the start of the run that were recorded, by kind.
    """

    by_model: dict[str | None, GradientsMeasured] = field(default_factory=dict)
    sums_of_squares: dict[str | None, SumsOfSquares] = field(default_factory=dict)
    epochs: dict[int, Losses] = field(default_factory=dict)
    recent: RecentLosses = field(default_factory=RecentLosses)
    seeds: dict[str | None, dict[str, GradientHealth]] = field(default_factory=dict)
    step: int | None = None
    learning_rate: float | None = None
    wholes: dict[tuple[str | None, ...], GradientHealth] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)

    def losses(self, epoch: "SpanIds | None") -> Losses | None:
        """Return the training losses of an epoch, or the newest ones without epochs; None without any."""
        return self.recent.total() if epoch is None else self.epochs.get(epoch.span_id)

    def seed(self, slot: str | None) -> GradientHealth | None:
        """Return the health of the seed in a slot; None if its gradients were not measured."""
        found = [seeds[slot] for seeds in list(self.seeds.values()) if slot in seeds] if slot is not None else []
        return found[-1] if found else None

    def ratios(self) -> dict[str, float]:
        """Return the gradient ratio of each growing seed to its host, by slot."""
        return {slot: each for sample in list(self.by_model.values()) for slot, each in sample.seed_ratios.items()}

    def health(self) -> GradientHealth | None:
        """Return the health of the model with the lowest score; None before the first sample.

        If no sample has a gradient, it is one without a score.
        """
        wholes = dict(self.wholes)
        members = {name for names in wholes for name in names}
        samples = [sample.health for name, sample in list(self.by_model.items()) if name not in members]
        known = [health for health in (*wholes.values(), *samples) if health.score is not None]
        if not known:
            return samples[0] if samples else None
        return min(known, key=lambda health: health.score or 0.0)


class StepProcessor:
    """Converter from delivered rows to measurements; stores the newest statistics per environment.

    Args:
        record: Receives the measurements.
        most: Maximum number of streams per model.
        top: Number of streams with the largest norm that each sample exports; None exports all.
        recent: Number of newest losses that a loop without epochs averages.
        now: The clock that steps are timed with, in nanoseconds since the Unix epoch.
    """

    def __init__(
        self,
        record: Callable[[Measurement], None],
        *,
        most: int,
        top: int | None = None,
        recent: int = RECENT,
        now: Callable[[], int] = time_ns,
    ) -> None:
        self._record = record
        self._limiter = StreamLimiter(most)
        self._top = top
        self._recent = recent
        self._now = now
        self._latest: dict[str | None, LatestStatistics] = {}
        self._failed = self._decreased = False

    def latest(self, env_id: str | None) -> LatestStatistics:
        """Return the newest statistics of an environment."""
        return self._latest.get(env_id) or self._latest.setdefault(
            env_id, LatestStatistics(recent=RecentLosses(self._recent))
        )

    def forget(self, env_id: str | None, model_name: str | None) -> None:
        """Remove the newest gradients of a model that is no longer watched."""
        latest = self.latest(env_id)
        latest.by_model.pop(model_name, None)
        latest.sums_of_squares.pop(model_name, None)
        latest.seeds.pop(model_name, None)
        for names in list(latest.wholes):
            if model_name in names:
                latest.wholes.pop(names, None)

    def __call__(self, metadata: "RowMetadata", arrays: "list[NDArray[np.generic]]") -> None:
        """Process one row: that of a step, or that of values which no step carried."""
        rows, moved = metadata.packing.unpack(arrays)
        numbers = {**metadata.known, **moved}
        self._logged(metadata, numbers)
        if not isinstance(metadata, LoggedMetadata):
            found = None if metadata.sampled is None else metadata.sampled.unpack(rows)
            if metadata.replicas is not None:
                publish(metadata, numbers, metadata.packing.unpack_lanes(arrays), found)
            self._of_step(metadata, found, numbers)

    def _of_step(self, metadata: "StepMetadata", found: "Statistics | None", numbers: dict[str, float]) -> None:
        latest = self.latest(metadata.env_id)
        metadata.delivered.calls = metadata.step + (0 if metadata.skipped else 1)
        skipped = total(numbers, SKIPPED_CALLS)
        self._count_skipped(metadata, skipped + metadata.unbegun)
        if metadata.skipped or numbers.get(OVERFLOW, 0.0) != 0.0:
            return
        step = metadata.step - skipped
        missed = max(0, step - metadata.delivered.steps)
        if metadata.primary:
            self._add_loss(metadata, numbers.get(LOSS), missed)
            latest.step, latest.learning_rate = step, numbers.get(f"{RATE}0")
        self._record(_step(metadata, step, numbers, missed=missed))
        metadata.delivered.steps = step + 1
        if found is not None:
            if found.failed:  # norm and health would be wrong, and the absent streams would seem to end
                self._warn_failed(found.failed)
            else:
                self._sample(metadata, step, found, metadata.samples - total(numbers, SKIPPED_SAMPLES))

    def _logged(self, metadata: "RowMetadata", numbers: dict[str, float]) -> None:
        """Record the values that the training loop logged; they count whether or not the step was skipped."""
        scalars, totals = scalars_in(numbers), items_in(numbers)
        if scalars or totals:
            recorded = self.latest(metadata.env_id).items
            items = {kind: total - recorded.get(kind, 0) for kind, total in totals.items()}
            recorded |= {kind: total for kind, total in totals.items() if items[kind] > 0}
            self._record(
                LoggedMeasured(
                    env_id=metadata.env_id,
                    time_unix_nano=metadata.time_unix_nano,
                    scalars=scalars,
                    items={kind: more for kind, more in items.items() if more >= 0},
                )
            )
            if min(items.values(), default=0) < 0:
                self._warn_decreased()

    def _warn_decreased(self) -> None:
        if not self._decreased:
            self._decreased = True
            _logger.warning(
                "A tensor passed to log_items() was negative. The count stays as it is until the sum has grown beyond it."
            )

    def _count_skipped(self, metadata: "StepMetadata", skipped: int) -> None:
        """Record the skipped steps since the previously delivered row."""
        more = skipped - metadata.delivered.skipped
        if more > 0:
            metadata.delivered.skipped = skipped
            self._record(
                StepSkipped(
                    env_id=metadata.env_id,
                    model_name=metadata.model_name,
                    time_unix_nano=metadata.time_unix_nano,
                    count=more,
                    step=metadata.delivered.steps,
                )
            )

    def _warn_failed(self, parameters: int) -> None:
        if not self._failed:
            self._failed = True
            _logger.warning(
                "Gradients of a step are absent, because a rank could not measure its shard of %d parameters. The log of "
                "that rank has the reason. Training is not affected.",
                parameters,
            )

    def _add_loss(self, metadata: "StepMetadata", loss: float | None, missed: int) -> None:
        if loss is None and not missed:
            return
        latest = self.latest(metadata.env_id)
        if metadata.epoch_ids is None:
            latest.recent.add(loss, missed)
            return
        epochs = latest.epochs
        losses = epochs.setdefault(metadata.epoch_ids.span_id, Losses())
        losses.missed += missed
        if loss is not None:
            losses.add(loss)
        while len(epochs) > 2:  # noqa: PLR2004 - the current epoch, and the previous one for a late validate()
            del epochs[next(iter(epochs))]

    def _sample(self, metadata: "StepMetadata", step: int, found: "Statistics", sample: int) -> None:
        latest = self.latest(metadata.env_id)
        mine = latest.sums_of_squares[metadata.model_name] = sums_of_squares(
            found.moments, found.seeds, metadata.epoch_ids
        )
        latest.seeds[metadata.model_name] = {
            slot: assess(tuple(found.names[row] for row in rows), found.moments.select(rows))
            for slot, rows in found.seeds.items()
        }
        # Copy the items: the training thread removes a model when its watch is closed.
        samples = list(latest.sums_of_squares.items())
        others = [each for model, each in samples if model != metadata.model_name]
        common: dict[str, Any] = {
            "env_id": metadata.env_id,
            "model_name": metadata.model_name,
            "step": step,
            "time_unix_nano": metadata.time_unix_nano,
            "epoch_ids": metadata.epoch_ids,
            "health": assess(found.names, found.moments),
            "lag": max(0.0, (self._now() - metadata.time_unix_nano) / 1e9),
            "idle": metadata.sampled.idle if metadata.sampled else (),
            "seed_ratios": seed_ratios(mine, others),
            "missed": max(0, sample - metadata.delivered.samples),
        }
        metadata.delivered.samples = sample + 1
        everything = np.arange(len(found.names))
        seen = latest.by_model[metadata.model_name] = GradientsMeasured(**common, **self._streams(found, everything))
        self._whole(metadata, seen, exported=bool(found.exported.any()))
        if metadata.state.closed:  # check last: another thread may have closed the watch meanwhile
            self.forget(metadata.env_id, metadata.model_name)
        if found.exported.all():
            self._record(seen)
        elif found.exported.any():  # another rank exports the other rows
            self._record(GradientsMeasured(**common, **self._streams(found, np.flatnonzero(found.exported))))

    def _whole(self, metadata: "StepMetadata", sample: GradientsMeasured, *, exported: bool) -> None:
        """Add a sample to its round; record the whole model once each of its optimizers has one."""
        if metadata.round is None:
            return
        whole, wholes = metadata.round.whole, self.latest(metadata.env_id).wholes
        if metadata.round.number != whole.number and not whole.complete:
            wholes.pop(whole.optimizers, None)  # an optimizer was left out: the newest health of the whole is outdated
        health = whole.add(metadata.round, metadata.model_name, sample.health)
        if health is None:
            return
        wholes[whole.optimizers] = health
        if exported:
            measured = WholeModelMeasured(
                env_id=metadata.env_id,
                model_name=whole.name,
                step=sample.step,
                time_unix_nano=sample.time_unix_nano,
                health=health,
                epoch_ids=sample.epoch_ids,
            )
            self._record(measured)

    def _streams(self, found: "Statistics", rows: "NDArray[np.intp]") -> dict[str, Any]:
        """Return the fields of a measurement for some rows, folded if they exceed the limit of streams."""
        whole = len(rows) == len(found.names)  # the usual case, which needs no copies
        names, groups = self._limiter(found.streams if whole else tuple(found.streams[row] for row in rows))
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


def _step(metadata: "StepMetadata", step: int, numbers: dict[str, float], *, missed: int) -> StepMeasured:
    norm = numbers.get(CLIP_NORM)
    rates = _learning_rates(numbers)
    return StepMeasured(
        env_id=metadata.env_id,
        model_name=metadata.model_name,
        primary=metadata.primary,
        step=step,
        time_unix_nano=metadata.time_unix_nano,
        duration=metadata.duration,
        loss=numbers.get(LOSS),
        learning_rate=rates[0] if rates else None,
        learning_rates=rates,
        sampled=metadata.sampled is not None,
        epoch_ids=metadata.epoch_ids,
        clip_norm=norm,
        clip_factor=None if norm is None or metadata.clip_limit is None else clip_factor(norm, metadata.clip_limit),
        overhead=numbers.get(OVERHEAD),
        sampling_interval=numbers.get(INTERVAL),
        missed=missed,
        phases=metadata.phases,
        backward_value=numbers.get(BACKWARD),
        program=metadata.program,
        signals=_signals(numbers) if metadata.program is not None else {},
    )


def _signals(numbers: dict[str, float]) -> dict[str, float]:
    """Return the values for contracts by name."""
    return {name.removeprefix(SIGNAL): value for name, value in numbers.items() if name.startswith(SIGNAL)}


def _learning_rates(numbers: dict[str, float]) -> tuple[float | None, ...]:
    """Return the learning rate of each parameter group."""
    names = [name for name in numbers if name.startswith(RATE)]
    if len(names) == 1 and names[0] == f"{RATE}0":  # the usual case
        return (numbers[names[0]],)
    by_group = {int(name.removeprefix(RATE)): numbers[name] for name in names}
    return tuple(by_group.get(group) for group in range(max(by_group, default=-1) + 1))


def clip_factor(norm: float, limit: float) -> float:
    """Return the factor of ``torch.nn.utils.clip_grad_norm_``: ``limit / (norm + 1e-6)``, at most 1."""
    factor = limit / (norm + 1e-6)
    return factor if isnan(factor) else min(1.0, factor)
