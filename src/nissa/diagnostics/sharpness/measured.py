"""Results of sharpness measurements, as frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """Result of one method.

    Args:
        method: ``"critical"`` or ``"average_case"``.
        value: Sharpness, None if not found; infinite if every step along the update raises the loss.
        standard_error: Standard error of ``value`` over the random directions; None below two of them, and for
            ``critical``, whose uncertainty is ``bounds``.
        stability_margin: ``critical`` only: the learning rate over the critical one. Above 1 the next step raises the
            loss of the batch.
        bounds: ``critical`` only: lowest and highest value compatible with the evaluations.
        evaluations: Number of loss evaluations.
        seconds: Total duration in seconds.
        complete: Whether the budget sufficed for the whole measurement.
        reason: Reason for a missing value.
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
    """Results of one probe, by method.

    Args:
        methods: Results of all methods that were tried.
        evaluations: Number of loss evaluations.
        seconds: Total duration in seconds.
    """

    methods: tuple[Sharpness, ...]
    evaluations: int
    seconds: float

    @property
    def values(self) -> dict[str, float]:
        """Sharpness by method, without missing values."""
        return {each.method: each.value for each in self.methods if each.value is not None}

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors by method, without missing values."""
        return {each.method: each.standard_error for each in self.methods if each.standard_error is not None}

    @property
    def stability_margin(self) -> float | None:
        """Learning rate over the critical one, None if not found."""
        return next((each.stability_margin for each in self.methods if each.stability_margin is not None), None)
