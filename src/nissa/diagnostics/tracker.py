"""Keeps the history of one environment and turns each validation into a snapshot."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean, pvariance

from nissa.diagnostics.flags import opportunities, red_flags
from nissa.diagnostics.narrative import narrate
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.diagnostics.trend import Trend
from nissa.events import EventType
from nissa.hub.measurements import GradientHealth
from nissa.profiles import TelemetryConfig
from nissa.profiles.features import percentile_feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What is known when ``validate()`` is called; None or empty where nobody measured it."""

    epoch: int | None
    env_id: str | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    per_class_accuracy: Mapping[object, float | None] | None = None
    gradient_health: GradientHealth | None = None
    gradient_percentiles: Mapping[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A snapshot, every flag with its state, and the trends that began with it."""

    snapshot: EpochSnapshot
    flags: dict[str, bool]
    trends: list[tuple[EventType, dict[str, float]]]


class DiagnosticTracker:
    """The history of one environment.

    Attributes:
        history: The newest snapshots, oldest first, at most ``history_length`` of the configuration.
    """

    def __init__(self, config: TelemetryConfig) -> None:
        self.history: deque[EpochSnapshot] = deque(maxlen=config.history_length)
        self._config = config
        self._trend = Trend(config.diagnostics)
        self._plateau_reference: float | None = None
        self._plateau_length = 0
        self._best_loss: float | None = None
        self._best_accuracy: float | None = None

    def diagnose(self, seen: Observations) -> Diagnosis:
        """Take what was observed and add its snapshot to the history."""
        snapshot = self._with_history(self._measured(seen))
        flags = red_flags(snapshot, self._config.diagnostics)
        snapshot = replace(
            snapshot,
            narrative=narrate(snapshot, self._config.diagnostics),
            red_flags=tuple(name for name, raised in flags.items() if raised),
            opportunities=opportunities(snapshot, list(self.history)),
        )
        self.history.append(snapshot)
        return Diagnosis(snapshot, flags, self._trend.begins(snapshot))

    def _measured(self, seen: Observations) -> EpochSnapshot:
        snapshot = EpochSnapshot(
            epoch=seen.epoch,
            env_id=seen.env_id,
            train_loss=seen.train_loss,
            validation_loss=seen.validation_loss,
            train_accuracy=seen.train_accuracy,
            validation_accuracy=seen.validation_accuracy,
            train_validation_gap=_difference(seen.validation_loss, seen.train_loss),
            gradient_health=seen.gradient_health,
            gradient_percentiles=dict(seen.gradient_percentiles or {}),
            per_class_accuracy=self._classes(seen.per_class_accuracy),
        )
        known = snapshot.known_class_accuracies.values()
        return replace(snapshot, class_variance=pvariance(known)) if known else snapshot

    def _with_history(self, snapshot: EpochSnapshot) -> EpochSnapshot:
        previous = self.history[-1] if self.history else None
        self._follow_plateau(snapshot.validation_loss)
        self._best_loss = _best(min, self._best_loss, snapshot.validation_loss)
        self._best_accuracy = _best(max, self._best_accuracy, snapshot.validation_accuracy)
        return replace(
            snapshot,
            loss_delta=_difference(snapshot.validation_loss, previous.validation_loss) if previous else None,
            accuracy_delta=_difference(snapshot.validation_accuracy, previous.validation_accuracy)
            if previous
            else None,
            plateau_length=self._plateau_length,
            best_loss=self._best_loss,
            best_accuracy=self._best_accuracy,
        )

    def _follow_plateau(self, loss: float | None) -> None:
        if loss is None:
            return
        if not math.isfinite(loss):
            self._plateau_reference, self._plateau_length = None, 0
            return
        reference = self._plateau_reference
        if reference is not None and abs(loss - reference) < self._config.diagnostics.plateau_delta:
            self._plateau_length += 1
        else:
            self._plateau_reference, self._plateau_length = loss, 1

    def _classes(self, given: Mapping[object, float | None] | None) -> dict[str, float]:
        if not given or not self._config.per_class.enabled:
            return {}
        known = ((str(name), float(value)) for name, value in given.items() if value is not None)
        return dict(islice(known, self._config.per_class.max_classes))


def features(snapshot: EpochSnapshot, config: TelemetryConfig) -> tuple[float, ...]:
    """Return the numbers named by ``config.feature_names``; NaN stands where nothing was measured."""
    values = _progress(snapshot) | _gradients(snapshot) | _spread(snapshot)
    return tuple(_number(values.get(name)) for name in config.feature_names)


def _progress(snapshot: EpochSnapshot) -> dict[str, float | None]:
    names = ("epoch", "train_loss", "validation_loss", "loss_delta", "train_accuracy", "validation_accuracy")
    more = ("accuracy_delta", "train_validation_gap", "plateau_length", "best_accuracy", "best_loss", "class_variance")
    return {name: getattr(snapshot, name) for name in (*names, *more)}


def _gradients(snapshot: EpochSnapshot) -> dict[str, float | None]:
    health = snapshot.gradient_health
    if health is None or health.score is None:
        return {}
    layers = {f"{kind}_layers": float(len(getattr(health, kind))) for kind in ("vanishing", "exploding", "nonfinite")}
    percentiles = {percentile_feature(p): value for p, value in snapshot.gradient_percentiles.items()}
    return {"gradient_global_norm": health.global_norm, "gradient_health": health.score, **layers, **percentiles}


def _spread(snapshot: EpochSnapshot) -> dict[str, float | None]:
    values = snapshot.known_class_accuracies.values()
    if not values:
        return {}
    return {
        "class_accuracy_mean": fmean(values),
        "class_accuracy_worst": min(values),
        "class_accuracy_best": max(values),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _best(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return choose(known) if known else None
