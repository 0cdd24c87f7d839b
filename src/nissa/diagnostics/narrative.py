"""One line that a person or a language model can read, in the form of the seed document, worst first.

Losses have three decimals; accuracies are percent here and only here.
"""

import math
from typing import Final

from nissa.diagnostics.flags import GOOD_HEALTH
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.profiles.sections import DiagnosticsConfig

MOVED: Final = 0.01
MOST_LENGTH: Final = 280


def narrate(snapshot: EpochSnapshot, config: DiagnosticsConfig) -> str:
    """Return the snapshot's narrative, at most 280 characters."""
    sentences = [*_troubles(snapshot), *_loss(snapshot, config), *_health(snapshot), *_classes(snapshot, config)]
    sentences += _overfitting(snapshot, config)
    sentences = sentences or ["Training normally"]
    line = sentences[0] if len(sentences[0]) <= MOST_LENGTH else f"{sentences[0][: MOST_LENGTH - 3]}..."
    for sentence in sentences[1:]:
        longer = f"{line} | {sentence}"
        if len(longer) > MOST_LENGTH:
            break
        line = longer
    return line


def _troubles(snapshot: EpochSnapshot) -> list[str]:
    health = snapshot.gradient_health
    losses = (snapshot.train_loss, snapshot.validation_loss)
    found = ["Loss is not finite"] if any(x is not None and not math.isfinite(x) for x in losses) else []
    if health is not None:
        for what, layers in (
            ("Non-finite", health.nonfinite),
            ("Exploding", health.exploding),
            ("Vanishing", health.vanishing),
        ):
            if layers:
                found.append(f"{what} gradients in {len(layers)} layer{'s' if len(layers) > 1 else ''}")
    return found


def _loss(snapshot: EpochSnapshot, config: DiagnosticsConfig) -> list[str]:
    loss, delta = snapshot.validation_loss, snapshot.loss_delta
    if loss is None or delta is None or not math.isfinite(delta):
        return []
    if snapshot.plateau_length >= config.plateau_epochs:
        return [f"Loss plateaued for {snapshot.plateau_length} epochs at ~{loss:.3f}"]
    if abs(delta) <= MOVED:
        return []
    return [f"Loss {'improving' if delta < 0 else 'degrading'} ({loss - delta:.3f} -> {loss:.3f})"]


def _health(snapshot: EpochSnapshot) -> list[str]:
    score = snapshot.gradient_health.score if snapshot.gradient_health else None
    return ["Gradient health good"] if score is not None and score >= GOOD_HEALTH else []


def _classes(snapshot: EpochSnapshot, config: DiagnosticsConfig) -> list[str]:
    accuracies = snapshot.known_class_accuracies
    if not accuracies:
        return []
    worst, best = min(accuracies, key=accuracies.__getitem__), max(accuracies, key=accuracies.__getitem__)
    if accuracies[best] - accuracies[worst] <= config.class_imbalance_spread:
        return []
    return [f"Class imbalance: {worst}={accuracies[worst]:.0%} vs {best}={accuracies[best]:.0%}"]


def _overfitting(snapshot: EpochSnapshot, config: DiagnosticsConfig) -> list[str]:
    gap = snapshot.train_validation_gap
    if gap is None or not gap > config.overfitting_gap:
        return []
    return [f"Possible overfitting (train-val gap: {gap:.2f})"]
