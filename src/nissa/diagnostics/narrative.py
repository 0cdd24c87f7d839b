"""Narrative of a validation or diagnosis: one line for a person or a language model, worst trouble first.

Each sentence comes from a table, so that programs can rely on its wording. Sentences are separated by `` | ``, which never
occurs within one. Losses have three decimals. Accuracies are in percent, unlike anywhere else.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nissa.config.sections import DiagnosticsConfig
from nissa.diagnostics.finding import Finding
from nissa.diagnostics.opportunities import GOOD_HEALTH, UNHEALTHY
from nissa.diagnostics.rules.overfitting import RELATIVE
from nissa.diagnostics.seed_findings import figure, short
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.diagnostics.words import in_layers
from nissa.events import Severity

MOST_LENGTH: Final = 280
SEPARATOR: Final = " | "
MOVED: Final = 0.01
RISEN: Final = 4.0
MOST_SEEDS: Final = 2
_MOST_NAME: Final = 24
_MOST_SEEN: Final = 90
_SERIOUS: Final = frozenset({Severity.ERROR, Severity.CRITICAL})


@dataclass(frozen=True, slots=True)
class Sentence:
    """Sentence of a narrative.

    Args:
        template: Format string of the text.
        flag: Red flag that the sentence belongs to, if any.
        when: Condition for the sentence, for the documentation.
    """

    template: str
    flag: str | None
    when: str


SENTENCES: Final[dict[str, Sentence]] = {
    "nonfinite_loss": Sentence(
        "Loss is not finite", "nonfinite_loss", "training or validation loss is NaN or infinite"
    ),
    "nonfinite_gradients": Sentence(
        "Non-finite gradients in {layers}", "nonfinite_gradients", "gradients have elements that are NaN or infinite"
    ),
    "exploding_gradients": Sentence(
        "Exploding gradients in {layers}",
        "exploding_gradients",
        "the flag is raised, or was not judged and such layers exist",
    ),
    "vanishing_gradients": Sentence("Vanishing gradients in {layers}", "vanishing_gradients", "as above"),
    "poor_gradient_health": Sentence(
        "Gradient health poor ({score:.2f})",
        "poor_gradient_health",
        "the flag is raised, and no sentence above gives the cause",
    ),
    "finding": Sentence("{seen}", None, "any other flag is raised: the observation of its rule, cut to 90 characters"),
    "no_gradients": Sentence(
        "No gradients in the last sample", None, "no parameter of the watched models had a gradient in it"
    ),
    "risen": Sentence(
        "Training loss far above its start ({before} -> {loss})",
        None,
        f"it is more than {RISEN:g} times as large, and no flag about it is raised",
    ),
    "plateau": Sentence(
        "Loss plateaued for {epochs} epochs at ~{loss}",
        "sustained_plateau",
        "the validation loss has not changed for `diagnostics.plateau_epochs`",
    ),
    "improving": Sentence("Loss improving ({before} -> {loss})", None, f"it fell by more than {MOVED:g}"),
    "degrading": Sentence("Loss degrading ({before} -> {loss})", None, f"it rose by more than {MOVED:g}"),
    "train_improving": Sentence(
        "Training loss improving ({before} -> {loss})",
        None,
        f"there is no validation loss, and the mean training loss fell by more than {MOVED:g}",
    ),
    "train_degrading": Sentence("Training loss degrading ({before} -> {loss})", None, "likewise, and it rose"),
    "good_health": Sentence(
        "Gradient health good",
        None,
        f"the health score is at least {GOOD_HEALTH:g}, and no flag about gradients or a diverging loss is raised",
    ),
    "imbalance": Sentence(
        "Class imbalance: {worst}={low} vs {best}={high}",
        "severe_class_imbalance",
        "the accuracies of the worst and the best class are far apart",
    ),
    "overfitting": Sentence(
        "Possible overfitting (train-val gap: {gap})",
        "overfitting",
        "the validation loss is far above the training loss",
    ),
    "seed": Sentence("{seed}", None, f"a seed has changed; at most {MOST_SEEDS} seeds, most important first"),
    "more_seeds": Sentence("+{count} more seeds", None, "more seeds have changed"),
    "unmeasured": Sentence(
        "No measurements yet", None, "no step, loss, accuracy or gradient has been measured, and no flag is raised"
    ),
    "incomplete": Sentence(
        "No diagnosis: missing {fields}",
        None,
        "no sentence above applies, and a value that was passed was refused, failed or did not arrive in time",
    ),
    "normal": Sentence("Training normally", None, "no other sentence applies"),
    "more": Sentence("+{count} more", None, f"not all sentences fit into {MOST_LENGTH} characters"),
}
"""Sentences in the order of a narrative."""


def narrate(snapshot: EpochSnapshot, config: DiagnosticsConfig, findings: Sequence[Finding] = ()) -> str:
    """Return the snapshot's narrative, at most 280 characters.

    Args:
        snapshot: Snapshot with its flags. Sentences about loss, classes and overfitting depend on its numbers too: a
            narrative describes, while a rule raises a flag only on firm evidence.
        config: Thresholds of these sentences.
        findings: Findings that are raised and not cleared, worst first.
    """
    sentences = [each for each in _Narrator(snapshot, config, findings).sentences() if each]
    return _joined(sentences or [_without_findings(snapshot)])


def _without_findings(snapshot: EpochSnapshot) -> str:
    # What was not measured may be what is wrong.
    fields = ", ".join(name.replace("_", " ") for name in snapshot.incomplete)
    if fields:
        return _sentence("incomplete", fields=fields)
    return _sentence("normal" if _measured(snapshot) else "unmeasured")


def _measured(snapshot: EpochSnapshot) -> bool:
    """Whether the snapshot has any number from which "Training normally" can follow."""
    return any(
        each is not None
        for each in (
            snapshot.step,
            snapshot.train_loss,
            snapshot.validation_loss,
            snapshot.train_validation_gap,
            snapshot.train_accuracy,
            snapshot.validation_accuracy,
            snapshot.gradient_health,
        )
    ) or bool(snapshot.per_class_accuracy or snapshot.per_class_loss or snapshot.sharpness or snapshot.seeds)


class _Narrator:
    def __init__(self, snapshot: EpochSnapshot, config: DiagnosticsConfig, findings: Sequence[Finding]) -> None:
        self._snapshot = snapshot
        self._config = config
        self._findings = findings

    def sentences(self) -> Iterator[str]:
        """Yield all sentences that apply, in order."""
        broken = [*self._broken()]
        others = [each for each in self._findings if each.name not in _FLAGS or self._lacks_numbers(each.name)]
        yield from broken
        yield from _finding_sentences(others, Severity.CRITICAL, Severity.ERROR)
        if not broken:
            yield from self._poor_health()
        yield from self._no_gradients()
        yield from _finding_sentences(others, Severity.WARNING)
        yield from self._risen()
        yield from self._loss()
        yield from self._health()
        yield from self._classes()
        yield from self._overfitting()
        yield from _finding_sentences(others, Severity.INFO, Severity.DEBUG)
        yield from self._seeds()

    def _lacks_numbers(self, flag: str) -> bool:
        """Whether the snapshot lacks the numbers of the sentence of a raised flag, which then has the rule's own words."""
        snapshot = self._snapshot
        health = snapshot.gradient_health
        return {
            "sustained_plateau": snapshot.validation_loss is None or snapshot.loss_delta is None,
            "overfitting": snapshot.train_validation_gap is None,
            "severe_class_imbalance": not snapshot.known_class_accuracies,
            "poor_gradient_health": health is None or health.score is None,
        }.get(flag, False)

    def _raised(self, flag: str) -> bool:
        return flag in self._snapshot.red_flags

    def _broken(self) -> Iterator[str]:
        losses = (self._snapshot.train_loss, self._snapshot.validation_loss)
        # Report a NaN or infinite loss at once, even if the rule still waits for confirmation.
        if self._raised("nonfinite_loss") or any(x is not None and not math.isfinite(x) for x in losses):
            yield _sentence("nonfinite_loss")
        if (layers := self._layers("nonfinite")) or self._raised("nonfinite_gradients"):
            yield from self._of_layers("nonfinite_gradients", layers)
        for kind in ("exploding", "vanishing"):
            flag, layers = f"{kind}_gradients", self._layers(kind)
            # Absolute sizes mean little: if a rule has judged the layers against a baseline, its flag decides.
            if self._raised(flag) if flag in self._snapshot.judged_flags else layers:
                yield from self._of_layers(flag, layers)

    def _of_layers(self, flag: str, layers: tuple[str, ...]) -> Iterator[str]:
        """Yield the sentence of a flag; if no layer is known, the observation of its rule, which is about the whole model."""
        found = [] if layers else [each for each in self._findings if each.name == flag]
        if found:
            yield _sentence("finding", seen=short(found[0].seen, _MOST_SEEN))
        elif layers:
            yield _sentence(flag, layers=in_layers(layers))
        else:
            yield _sentence("finding", seen=flag.replace("_", " ").capitalize())

    def _layers(self, kind: str) -> tuple[str, ...]:
        found = [each for each in self._findings if each.name == f"{kind}_gradients"]
        if found:
            return tuple(layer for each in found for layer in each.layers)
        health = self._snapshot.gradient_health
        layers: tuple[str, ...] = () if health is None else getattr(health, kind)
        return layers

    def _poor_health(self) -> Iterator[str]:
        health = self._snapshot.gradient_health
        if health is not None and health.score is not None and self._raised("poor_gradient_health"):
            yield _sentence("poor_gradient_health", score=health.score)

    def _no_gradients(self) -> Iterator[str]:
        health = self._snapshot.gradient_health
        if health is not None and health.layers == 0:
            yield _sentence("no_gradients")

    def _has_risen(self) -> bool:
        loss, first = self._snapshot.train_loss, self._snapshot.first_train_loss
        return loss is not None and first is not None and math.isfinite(loss) and loss > RISEN * abs(first) > 0

    def _risen(self) -> Iterator[str]:
        """Yield a sentence about a loss that has diverged, even if the rules still wait for confirmation."""
        loss, first = self._snapshot.train_loss, self._snapshot.first_train_loss
        reported = {"divergence", "learning_rate_too_high", "loss_spike"} & {*self._snapshot.red_flags}
        if self._has_risen() and not reported and loss is not None and first is not None:
            yield _sentence("risen", before=figure(first), loss=figure(loss))

    def _loss(self) -> Iterator[str]:
        loss, delta = self._snapshot.validation_loss, self._snapshot.loss_delta
        if loss is None:
            yield from self._train_loss()
        if loss is None or delta is None or not math.isfinite(delta):
            return
        epochs = self._snapshot.plateau_length
        if self._raised("sustained_plateau") or epochs >= self._config.plateau_epochs:
            yield _sentence("plateau", epochs=epochs, loss=figure(loss))
        elif abs(delta) > MOVED:
            yield _sentence("improving" if delta < 0 else "degrading", before=figure(loss - delta), loss=figure(loss))

    def _train_loss(self) -> Iterator[str]:
        loss, delta = self._snapshot.train_loss, self._snapshot.train_loss_delta
        if loss is not None and delta is not None and math.isfinite(delta) and abs(delta) > MOVED:
            name = "train_improving" if delta < 0 else "train_degrading"
            yield _sentence(name, before=figure(loss - delta), loss=figure(loss))

    def _health(self) -> Iterator[str]:
        health = self._snapshot.gradient_health
        if health is not None and health.score is not None and health.score >= GOOD_HEALTH and not self._troubled():
            yield _sentence("good_health")

    def _troubled(self) -> bool:
        """Whether a flag or a loss contradicts good health, which is a score of absolute sizes."""
        losses = (self._snapshot.train_loss, self._snapshot.validation_loss)
        broken = any(loss is not None and not math.isfinite(loss) for loss in losses)
        return broken or self._has_risen() or not UNHEALTHY.isdisjoint(self._snapshot.red_flags)

    def _classes(self) -> Iterator[str]:
        known = self._snapshot.known_class_accuracies
        if not known:
            return
        worst, best = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        low, high = known[worst], known[best]
        if self._raised("severe_class_imbalance") or high - low > self._config.class_imbalance_spread:
            names = {"worst": short(worst, _MOST_NAME), "best": short(best, _MOST_NAME)}
            yield _sentence("imbalance", **names, low=_percent(low), high=_percent(high))

    def _overfitting(self) -> Iterator[str]:
        gap, train = self._snapshot.train_validation_gap, self._snapshot.train_loss
        limit = max(self._config.overfitting_gap, RELATIVE * abs(train or 0.0))
        if gap is not None and (self._raised("overfitting") or gap > limit):
            yield _sentence("overfitting", gap=figure(gap, ".2f"))

    def _seeds(self) -> Iterator[str]:
        seeds = self._snapshot.seeds
        yield from (_sentence("seed", seed=each.sentence) for each in seeds[:MOST_SEEDS])
        if len(seeds) > MOST_SEEDS:
            yield _sentence("more_seeds", count=len(seeds) - MOST_SEEDS)


_FLAGS: Final = frozenset(each.flag for each in SENTENCES.values() if each.flag is not None)


def _sentence(name: str, **values: object) -> str:
    return SENTENCES[name].template.format(**values)


def _finding_sentences(findings: Sequence[Finding], *severities: Severity) -> Iterator[str]:
    for severity in severities:
        yield from (
            _sentence("finding", seen=short(each.seen, _MOST_SEEN)) for each in findings if each.severity is severity
        )


def _percent(value: float) -> str:
    return f"{figure(value * 100, '.0f')}%"


def _joined(sentences: Sequence[str]) -> str:
    line = SEPARATOR.join(sentences)
    if len(line) <= MOST_LENGTH:
        return line
    most = MOST_LENGTH - len(SEPARATOR + _sentence("more", count=len(sentences)))
    kept: list[str] = []
    for sentence in sentences:
        if len(SEPARATOR.join([*kept, sentence])) <= most:
            kept.append(sentence)
    return SEPARATOR.join([*kept, _sentence("more", count=len(sentences) - len(kept))])
