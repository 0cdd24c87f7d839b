"""All ways that are compared."""

from typing import Any

from benchmarks.steps import others
from benchmarks.steps.ways import Way, bare, nissa

EVERY_STEP: dict[str, Any] = {"gradients": {"every_n_steps": 1}}
SAMPLED = "standard, every step"
"""The way whose sampled steps are compared with those of others."""


def _profile(name: str, pairs: int, every: int = 1) -> Way:
    return Way(nissa(name), pairs, every, profile=name, timed=nissa(name, timer=True))


WAYS: dict[str, Way] = {
    "bare": Way(bare, pairs=2),
    "minimal": _profile("minimal", pairs=4),
    "standard": _profile("standard", pairs=4, every=10),
    "diagnostic": _profile("diagnostic", pairs=3),
    "research": _profile("research", pairs=2),
    SAMPLED: Way(nissa("standard", **EVERY_STEP), pairs=4, timed=nissa("standard", timer=True, **EVERY_STEP)),
    "hooks of the document": Way(others.hooks),
    "wandb.watch": Way(others.wandb, pairs=3, package="wandb"),
    "Lightning grad_norm": Way(others.lightning, package="lightning"),
    "Composer OptimizerMonitor": Way(others.composer, package="mosaicml"),
    "pulsegrad": Way(others.pulsegrad, package="pulsegrad"),
    "torchtel": Way(others.torchtel, package="torchtel"),
}
"""By the name that is in the results. Goals decide how many pairs: most go where the least is to be told from zero."""
