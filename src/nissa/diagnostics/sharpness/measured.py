"""What was measured, as frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """What one method found.

    Args:
        method: ``"critical"`` or ``"average_case"``.
        value: None where it could not be found; infinite where every step along the update raises the loss.
        standard_error: Of ``value``, over the random directions; None below two of them, and for ``critical``, whose
            uncertainty is ``bounds``.
        stability_margin: ``critical`` only: the learning rate over the critical one. Above 1 the next step raises the
            loss of the batch.
        bounds: ``critical`` only: lowest and highest value that the evaluations leave possible.
        evaluations: How often the loss was evaluated.
        seconds: How long it all took.
        complete: Whether the budget sufficed for all that was asked for.
        reason: Why there is no value.
    """

    method: str
    value: float | None = None
    standard_error: float | None = None
    stability_margin: float | None = None
    bounds: tuple[float, float] | None = None
    evaluations: int = 0
    seconds: float = 0.0
    complete: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharpnessMeasured:
    """What one probe found, by method.

    Args:
        methods: All that were tried.
        evaluations: How often the loss was evaluated.
        seconds: How long it all took.
    """

    methods: tuple[Sharpness, ...]
    evaluations: int
    seconds: float

    @property
    def values(self) -> dict[str, float]:
        """By method; what could not be found is absent."""
        return {each.method: each.value for each in self.methods if each.value is not None}

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors by method, where there are any."""
        return {each.method: each.standard_error for each in self.methods if each.standard_error is not None}

    @property
    def stability_margin(self) -> float | None:
        """The learning rate over the critical one, None where that was not found."""
        return next((each.stability_margin for each in self.methods if each.stability_margin is not None), None)
