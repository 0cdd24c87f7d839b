"""All ways that are compared."""

from benchmarks.steps import others
from benchmarks.steps.ways import Way, bare, nissa

EVERY_STEP = {"gradients": {"every_n_steps": 1}}
SAMPLED = "standard, every step"
"""The way whose sampled steps are compared with those of others."""

WAYS: dict[str, Way] = {
    "bare": Way(bare, rounds=3),
    "minimal": Way(nissa("minimal"), steps=20, profile="minimal"),
    "standard": Way(nissa("standard"), every=10, steps=20, profile="standard"),
    "diagnostic": Way(nissa("diagnostic"), profile="diagnostic"),
    "research": Way(nissa("research"), profile="research"),
    SAMPLED: Way(nissa("standard", **EVERY_STEP)),
    "hooks of the document": Way(others.hooks, steps=2),
    "wandb.watch": Way(others.wandb, steps=2, package="wandb"),
    "Lightning grad_norm": Way(others.lightning, steps=2, package="lightning"),
    "Composer OptimizerMonitor": Way(others.composer, steps=2, package="mosaicml"),
    "pulsegrad": Way(others.pulsegrad, steps=2, package="pulsegrad"),
    "torchtel": Way(others.torchtel, steps=2, package="torchtel"),
}
"""By the name that is in the results."""
