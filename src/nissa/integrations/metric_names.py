"""Validation loss and accuracy among the metrics that a trainer reports under names of its user's choice."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_PHASES: Final = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev"})
_LOSSES: Final = frozenset({"loss"})
_ACCURACIES: Final = frozenset({"acc", "accuracy"})
_LOADER: Final = re.compile(r"/dataloader_idx_\d+$")
"""Suffix that Lightning appends where there are several validation loaders."""


@dataclass(frozen=True, slots=True)
class ValidationNames:
    """Names of the validation loss and accuracy; None selects the usual names.

    Example:
        >>> ValidationNames().find({"eval_loss": 0.5, "eval_accuracy": 0.75, "eval_runtime": 1.0})
        ('eval_loss', 'eval_accuracy')
        >>> ValidationNames(accuracy="val/f1").find({"val/f1": 0.5})
        (None, 'val/f1')
    """

    loss: str | None = None
    accuracy: str | None = None

    def find(self, metrics: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return the keys of the validation loss and accuracy; None for one that is absent."""
        return self._one(metrics, self.loss, _LOSSES), self._one(metrics, self.accuracy, _ACCURACIES)

    @staticmethod
    def _one(metrics: Mapping[str, Any], chosen: str | None, kinds: frozenset[str]) -> str | None:
        if chosen is not None:
            return chosen if chosen in metrics else None
        return min(_usual(metrics, kinds), key=len, default=None)


def _usual(names: Iterable[str], kinds: frozenset[str]) -> list[str]:
    """Return names such as ``val_loss``, ``eval/loss`` and ``eval_other_loss``."""
    return [name for name in names if _is_usual(re.findall(r"[a-z0-9]+", _LOADER.sub("", name).lower()), kinds)]


def _is_usual(words: list[str], kinds: frozenset[str]) -> bool:
    return len(words) > 1 and words[0] in _PHASES and words[-1] in kinds
