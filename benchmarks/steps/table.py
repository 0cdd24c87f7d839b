"""Table of all compared ways."""

from typing import Any

from benchmarks.steps import others
from benchmarks.steps.ways import Way, bare, nissa

EVERY_STEP: dict[str, Any] = {"gradients": {"every_n_steps": 1}}
SAMPLED = "standard, every step"
"""Way whose sampled steps are compared with those of other tools."""


def _profile(name: str, pairs: int, every: int = 1) -> Way:
    return Way(entering=nissa(name), pairs=pairs, every=every, profile=name, timed=nissa(name, timer=True))


WAYS: dict[str, Way] = {
    "bare": Way(entering=bare, pairs=2, rounds=2),
    "minimal": _profile("minimal", pairs=2),
    "standard": _profile("standard", pairs=3, every=10),
    "diagnostic": _profile("diagnostic", pairs=5),
    "research": _profile("research", pairs=3),
    SAMPLED: Way(entering=nissa("standard", **EVERY_STEP), pairs=5, timed=nissa("standard", timer=True, **EVERY_STEP)),
    "hooks of the document": Way(entering=others.hooks()),
    "wandb.watch": Way(entering=others.wandb, pairs=3, package="wandb"),
    "Lightning grad_norm": Way(entering=others.lightning, rounds=3, package="lightning"),
    "Composer OptimizerMonitor": Way(entering=others.composer, rounds=3, package="mosaicml"),
    "pulsegrad": Way(entering=others.pulsegrad, rounds=3, package="pulsegrad"),
    "torchtel": Way(entering=others.torchtel, rounds=3, package="torchtel"),
}
"""By the name that is in the results. Most pairs go where they decide a goal; a fifth of a percent no number of them decides."""
