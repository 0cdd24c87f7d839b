"""Reports of loops without epochs: a narrative after every n-th step, and a line on the console from time to time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nissa.hub.measurements import ProgressMeasured, StepMeasured
from nissa.run.diagnosis import diagnose

if TYPE_CHECKING:
    from nissa.run.runtime import Runtime


@dataclass(slots=True)
class _Reported:
    """State of one environment.

    Args:
        diagnoses: Number of narratives that were due so far.
        step: Step of the previous line, or the first step.
        at: Time of that step, nanoseconds since the Unix epoch.
        loss: Newest logged loss.
    """

    diagnoses: int
    step: int
    at: int
    loss: float | None = None


class ProgressReports:
    """Reports of the steps outside epochs; called on the worker's thread, with the steps in order.

    Args:
        runtime: Components of the run.
        lines: Whether lines for the console are made.
    """

    def __init__(self, runtime: "Runtime", *, lines: bool) -> None:
        self._runtime = runtime
        self._every_n_steps = runtime.config.diagnosis.every_n_steps
        self._pause = round(runtime.config.console.every_seconds * 1e9) if lines else None
        self._environments: dict[str | None, _Reported] = {}
        self._last_line: int | None = None

    def due(self, step: StepMeasured) -> bool:
        """Record a step, and return whether a report is due after it."""
        reported = self._environments.get(step.env_id)
        if reported is None:
            # A resumed run begins with a later step: only narratives from here on are due.
            before = step.step // self._every_n_steps if self._every_n_steps else 0
            reported = self._environments[step.env_id] = _Reported(before, step.step, step.time_unix_nano)
        if step.loss is not None:
            reported.loss = step.loss
        return self._line_is_due(step) or self._diagnoses(step) > reported.diagnoses

    def report(self, step: StepMeasured) -> None:
        """Make the reports that are due after a step. The rules have judged it."""
        reported = self._environments[step.env_id]
        if self._line_is_due(step):
            self._line(step, reported)
        if (diagnoses := self._diagnoses(step)) > reported.diagnoses:
            reported.diagnoses = diagnoses
            diagnose(self._runtime, step.env_id, None, at=step.time_unix_nano, arrived=True)

    def _diagnoses(self, step: StepMeasured) -> int:
        return (step.step + 1) // self._every_n_steps if self._every_n_steps else 0

    def _line_is_due(self, step: StepMeasured) -> bool:
        if self._pause is None:
            return False
        return self._last_line is None or step.time_unix_nano - self._last_line >= self._pause

    def _line(self, step: StepMeasured, reported: _Reported) -> None:
        at, seconds = step.time_unix_nano, (step.time_unix_nano - reported.at) / 1e9
        flags = self._runtime.tracker(step.env_id).rules.flags
        self._runtime.hub.notify(
            ProgressMeasured(
                env_id=step.env_id,
                step=step.step,
                time_unix_nano=at,
                loss=reported.loss,
                steps_per_second=(step.step - reported.step) / seconds if seconds > 0 else None,
                red_flags=tuple(name for name, raised in flags.items() if raised),
            )
        )
        reported.step, reported.at, self._last_line = step.step, at, at
