"""Readings as rules see them, made up."""

from typing import Any

import numpy as np

from nissa.config import TelemetryConfig
from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.gradients.health import assess
from nissa.hub.measurements import GradientsMeasured, StepMeasured
from nissa.kernels.moments import Moments

SIZE = 100
"""Elements of a layer."""


def book(**rules: Any) -> RuleBook:
    """Return the rules of one environment, with changed thresholds and without contracts."""
    overrides: dict[str, Any] = {"diagnostics__contracts": False}
    overrides |= {f"diagnostics__rules__{name}": value for name, value in rules.items()}
    return RuleBook(TelemetryConfig.from_profile("diagnostic", overrides).diagnostics)


def judge(rules: RuleBook, *seen: StepMeasured | GradientsMeasured) -> list[Finding]:
    """Return what rules find in some steps or in some samples, judged at once."""
    steps = [each for each in seen if isinstance(each, StepMeasured)]
    samples = [each for each in seen if isinstance(each, GradientsMeasured)]
    return rules.judge(steps, samples)


def step(loss: float | None, number: int = 0, *, model: str | None = None, missed: int = 0) -> StepMeasured:
    """Return a step."""
    return StepMeasured(env_id=None, model_name=model, step=number, time_unix_nano=number, loss=loss, missed=missed)


def sample(
    number: int = 0, *, model: str | None = None, idle: tuple[str, ...] = (), missed: int = 0, **layers: Any
) -> GradientsMeasured:
    """Return the gradients of a step: of each layer its norm, or what else is said of it."""
    told = [value if isinstance(value, dict) else {"norm": value} for value in layers.values()]
    names = tuple(name.replace("__", ".") for name in layers)
    moments = _moments(told)
    weights = [each.get("weight", float("nan")) for each in told]
    return GradientsMeasured(
        env_id=None,
        model_name=model,
        step=number,
        time_unix_nano=number,
        names=names,
        moments=moments,
        health=assess(names, moments),
        lag=0.0,
        idle=idle,
        missed=missed,
        weight_norms=np.array(weights) if any("weight" in each for each in told) else None,
    )


def validated(loss: float | None = None, **fields: Any) -> EpochSnapshot:
    """Return a snapshot."""
    return EpochSnapshot(**{"epoch": 0, "validation_loss": loss, **fields})


def _moments(told: list[dict[str, float]]) -> Moments:
    def column(name: str) -> Any:
        return np.array([round(each.get(name, 0.0) * SIZE) for each in told], dtype=np.int64)

    norms = np.array([each.get("norm", 1.0) for each in told])
    nothing = np.zeros(len(told))
    return Moments(
        count=np.full(len(told), SIZE),
        nonfinite=column("nonfinite"),
        zeros=column("zeros"),
        vanishing=column("vanishing"),
        exploding=column("exploding"),
        underflow=column("none"),
        overflow=column("none"),
        total=nothing,
        abs_total=nothing,
        sum_of_squares=norms**2,
        minimum=-norms,
        maximum=norms,
        abs_max=norms,
    )
