"""Configuration section of the sharpness measurement: curvature of the loss at the current weights."""

from typing import Literal, get_args

from pydantic import Field, field_validator

from nissa.config.section import Section

SharpnessMethod = Literal["critical", "average_case"]
"""Name of a sharpness measure, see ``docs/explanation/sharpness.md``."""

METHODS: tuple[SharpnessMethod, ...] = get_args(SharpnessMethod)
"""All sharpness measures, in the order of measurement."""


class SharpnessConfig(Section):
    """Curvature of the loss at the current weights, measured by evaluations of a fixed batch."""

    enabled: bool = False
    """Measure sharpness where ``validate()`` is given a ``closure`` that returns the loss of a fixed batch."""

    every_n_epochs: int = Field(default=5, ge=1, le=100_000)
    """Measure in every n-th epoch; 1 measures in each."""

    budget_milliseconds: float = Field(default=500.0, gt=0, le=3_600_000)
    """Time that one measurement may take. No evaluation of the loss begins that would probably end later."""

    methods: tuple[SharpnessMethod, ...] = METHODS
    """Measures: ``critical`` along the optimizer's next update, ``average_case`` in random directions."""

    samples: int = Field(default=5, ge=1, le=1_000)
    """Random directions of ``average_case``."""

    scale: float = Field(default=0.01, gt=0, lt=1)
    """Length of a random perturbation of each tensor, as a fraction of the norm of that tensor."""

    compile: bool = False
    """Evaluate all random directions of ``average_case`` in one compiled call, which is faster from then on. The first
    measurement takes up to half a minute for the compilation, whatever the budget."""

    @field_validator("methods")
    @classmethod
    def _order_methods(cls, methods: tuple[SharpnessMethod, ...]) -> tuple[SharpnessMethod, ...]:
        if not methods:
            raise ValueError("an empty list measures nothing; name a method, or set enabled to false")
        return tuple(name for name in METHODS if name in methods)
