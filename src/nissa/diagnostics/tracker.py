"""History of one environment, which turns each validation and diagnosis into a snapshot."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nissa.diagnostics.brief import DecisionBrief, decision_brief
from nissa.diagnostics.classes import of_classes
from nissa.diagnostics.features import seed_features, signals_to_features
from nissa.diagnostics.finding import Finding
from nissa.diagnostics.narrative import narrate
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.opportunities import opportunities
from nissa.diagnostics.rulebook import RuleBook
from nissa.diagnostics.seed_findings import SeedReporter
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.diagnostics.trend import Trend
from nissa.events import EventType
from nissa.semconv.cardinality import CardinalityLimiter

if TYPE_CHECKING:
    from nissa.config import TelemetryConfig
    from nissa.events import SeedSnapshot
    from nissa.hub.critical import CriticalSections
    from nissa.hub.measurements import GradientHealth


_LARGER, _ABOVE = 3.0, 1.5
"""Ratios of the first validation loss to the training loss of its epoch, and to the first training losses, above both of which
they do not measure the same."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Snapshot, state of all judged flags, and at a validation trends that began and findings that changed."""

    snapshot: EpochSnapshot
    flags: dict[str, bool]
    trends: list[tuple[EventType, dict[str, float]]]
    changes: list[Finding]


class DiagnosticTracker:
    """History of one environment, and the rules that judge it.

    Args:
        sections: Critical sections that the lock of the rules belongs to, by default new ones.

    Attributes:
        config: Settings of the history and the rules.
        history: Newest snapshots, oldest first, at most ``history_length`` of the configuration.
        rules: Rules that raise and clear red flags.
    """

    def __init__(self, config: "TelemetryConfig", sections: "CriticalSections | None" = None) -> None:
        self.config = config
        self.history: deque[EpochSnapshot] = deque(maxlen=config.history_length)
        self.rules = RuleBook(config.diagnostics, sections)
        self._trend = Trend(config.diagnostics)
        self._seeds = SeedReporter()
        # Diagnoses without a validation have their own, so that a validation reports all changes since the previous one.
        self._described_seeds = SeedReporter()
        self._described_loss: float | None = None
        self._classes = CardinalityLimiter(config.per_class.max_classes, "classes", "per_class.max_classes")
        self._plateau_reference: float | None = None
        self._plateau_length = 0
        self._first_loss: float | None = None
        self._measures_same: bool | None = None
        self._best_loss: float | None = None
        self._best_accuracy: float | None = None
        self._seen = 0

    def diagnose(self, seen: Observations) -> Diagnosis:
        """Make a snapshot of a validation, judge it, and add it to the history."""
        snapshot = self._with_history(self._measured(seen, self._seeds))
        changes = self.rules.epoch(snapshot)
        snapshot, flags = self._concluded(snapshot)
        self.history.append(snapshot)
        self._seen += 1
        return Diagnosis(snapshot, flags, self._trend.begins(snapshot), changes)

    def describe(self, seen: Observations) -> Diagnosis:
        """Make a snapshot without a validation; no rule is applied, and the history does not change."""
        measured = self._measured(seen, self._described_seeds)
        before, self._described_loss = self._described_loss, measured.train_loss
        snapshot, flags = self._concluded(
            replace(
                measured,
                train_loss_delta=_difference(measured.train_loss, before),
                plateau_length=self._plateau_length,
                best_loss=self._best_loss,
                best_accuracy=self._best_accuracy,
                first_train_loss=self.rules.first_loss,
            )
        )
        return Diagnosis(snapshot, flags, [], [])

    def _concluded(self, snapshot: EpochSnapshot) -> tuple[EpochSnapshot, dict[str, bool]]:
        """Return the snapshot with flags, findings, opportunities and narrative, and the state of all judged flags."""
        flags, findings = self.rules.flags, self.rules.findings
        snapshot = replace(
            snapshot,
            red_flags=tuple(name for name, raised in flags.items() if raised),
            judged_flags=tuple(flags),
            findings=tuple(replace(finding, env_id=snapshot.env_id, up=True) for finding in findings),
        )
        snapshot = replace(snapshot, opportunities=opportunities(snapshot, list(self.history)))
        return replace(snapshot, narrative=narrate(snapshot, self.config.diagnostics, findings)), flags

    def brief(self, *, action: object, reason: str | None = None) -> DecisionBrief:
        """Return the decision brief for a policy or a language model that is about to act, or explains an action.

        Before the first validation, the narrative of the brief is "No validation yet".

        Args:
            action: Planned or past action; for a member of an enumeration, its name is used.
            reason: Reason of the policy.
        """
        newest = self.history[-1] if self.history else None
        return decision_brief(action, reason, newest, self.rules.findings, validations=self._seen)

    def features(self) -> tuple[float, ...]:
        """Return the result of `nissa.signals_to_features` for this tracker."""
        return signals_to_features(self)

    def seed_features(
        self, seed: "SeedSnapshot", *, health: "GradientHealth | None" = None, ratio: float | None = None
    ) -> tuple[float, ...]:
        """Return the feature vector of one seed.

        Args:
            seed: State of the seed.
            health: Health of its newest gradients.
            ratio: Root mean square of the seed's gradients over that of its host's.
        """
        return seed_features(seed, health=health, ratio=ratio)

    def _measured(self, seen: Observations, seeds: SeedReporter) -> EpochSnapshot:
        return EpochSnapshot(
            epoch=seen.epoch,
            env_id=seen.env_id,
            time_unix_nano=seen.time_unix_nano,
            step=seen.step,
            learning_rate=seen.learning_rate,
            train_loss=seen.train_loss,
            loss_noise=seen.loss_noise,
            validation_loss=seen.validation_loss,
            train_accuracy=seen.train_accuracy,
            validation_accuracy=seen.validation_accuracy,
            train_validation_gap=_difference(seen.validation_loss, seen.train_loss),
            gradient_health=seen.gradient_health,
            gradient_stats=seen.gradient_stats,
            gradient_percentiles=dict(seen.gradient_percentiles or {}),
            weight_norms={each.label: each.weight_norm for each in seen.gradient_stats if each.weight_norm is not None},
            sharpness=dict(seen.sharpness),
            sharpness_error=dict(seen.sharpness_error),
            stability_margin=seen.stability_margin,
            forward_modes=seen.forward_modes,
            incomplete=seen.incomplete,
            seeds=seeds.findings(seen.seeds, seen.seed_ratios),
            **of_classes(seen, self.config.per_class, self._classes),
        )

    def _with_history(self, snapshot: EpochSnapshot) -> EpochSnapshot:
        previous = self.history[-1] if self.history else EpochSnapshot(epoch=None)
        if "validation_loss" in snapshot.incomplete:  # the lost loss may have ended the plateau
            self._plateau_reference, self._plateau_length = None, 0
        else:
            self._follow_plateau(snapshot.validation_loss)
        self._best_loss = _best(min, self._best_loss, snapshot.validation_loss)
        self._best_accuracy = _best(max, self._best_accuracy, snapshot.validation_accuracy)
        return replace(
            snapshot,
            train_loss_delta=_difference(snapshot.train_loss, previous.train_loss),
            loss_delta=_difference(snapshot.validation_loss, previous.validation_loss),
            accuracy_delta=_difference(snapshot.validation_accuracy, previous.validation_accuracy),
            plateau_length=self._plateau_length,
            best_loss=self._best_loss,
            best_accuracy=self._best_accuracy,
            first_train_loss=self.rules.first_loss,
            train_validation_gap=snapshot.train_validation_gap if self._comparable(snapshot) else None,
        )

    def _comparable(self, snapshot: EpochSnapshot) -> bool:
        """Whether training and validation loss measure the same, judged once.

        A sum over more examples, or a loss without the factor of the training loss, is larger than the training loss at once,
        and larger than even its first values were.
        """
        loss, train, first = snapshot.validation_loss, snapshot.train_loss, self.rules.first_loss
        if self._measures_same is None and loss is not None and train is not None and first is not None:
            self._measures_same = train <= 0 or not loss > max(_LARGER * train, _ABOVE * abs(first))
        return self._measures_same is not False

    def _follow_plateau(self, loss: float | None) -> None:
        if loss is None:
            return
        if not math.isfinite(loss):
            self._plateau_reference, self._plateau_length = None, 0
            return
        reference, first = self._plateau_reference, abs(self._first_loss if self._first_loss is not None else loss)
        self._first_loss = loss if self._first_loss is None else self._first_loss
        # A share of the first loss, because the units of a loss are arbitrary.
        if reference is not None and abs(loss - reference) <= self.config.diagnostics.plateau_delta * first:
            self._plateau_length += 1
        else:
            self._plateau_reference, self._plateau_length = loss, 1


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _best(choose: Callable[[list[float]], float], *values: float | None) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return choose(known) if known else None
