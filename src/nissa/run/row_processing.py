"""Rows of steps that have arrived on the host: conversion to measurements, rules, and reports of loops without epochs."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from nissa.gradients.losses import RECENT
from nissa.gradients.readback import Readback
from nissa.gradients.step_processor import StepProcessor
from nissa.hub.measurements import GradientsMeasured, Measurement, ReplicasCompared, StepMeasured, StepSkipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nissa.config import TelemetryConfig
    from nissa.diagnostics.finding import Finding
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.gradients.step_metadata import RowMetadata
    from nissa.hub.hub import NissaHub


class Progress(Protocol):
    """Reports of the steps of loops without epochs."""

    def due(self, step: StepMeasured) -> bool:
        """Record a step, and return whether a report is due after it."""

    def report(self, step: StepMeasured) -> None:
        """Make the reports that are due after a step."""


class RowProcessor:
    """Processor of the rows of a run; works on the worker's thread.

    Args:
        config: Settings of the run.
        hub: Receives the measurements.
        now: Wall clock, nanoseconds since the Unix epoch.
        tracker: Returns the diagnostic tracker of an environment.
        emit_findings: Emits findings of an environment.

    Attributes:
        readback: Queue of the rows, from the device to this processor.
        step_processor: Converts a row to measurements, and keeps the latest ones.
        progress: Reports of steps outside epochs; set by the run.
    """

    def __init__(
        self,
        config: "TelemetryConfig",
        hub: "NissaHub",
        *,
        now: Callable[[], int],
        tracker: "Callable[[str | None], DiagnosticTracker]",
        emit_findings: "Callable[[Iterable[Finding], str | None], None]",
    ) -> None:
        self._hub = hub
        self._tracker = tracker
        self._emit_findings = emit_findings
        self.step_processor = StepProcessor(
            self._record,
            most=config.gradients.max_parameters,
            top=config.gradients.top_k,
            recent=min(config.diagnosis.every_n_steps or RECENT, RECENT),
            now=now,
        )
        self.readback: Readback[RowMetadata] = Readback(
            self._deliver,
            capacity=config.limits.readback_queue_size,
            error_boundary=hub.error_boundary,
            environment_of=lambda metadata: metadata.env_id,
        )
        # Measurements of the rows being delivered; buffered so that the rules process them in one block per watch.
        self._measurements: list[Measurement] = []
        self.progress: Progress | None = None
        # The newest step outside epochs of the row that is being delivered.
        self._outside: StepMeasured | None = None

    def _deliver(self, rows: "list[tuple[RowMetadata, list[NDArray[np.generic]]]]") -> None:
        """Convert rows to measurements, then apply the rules to them."""
        for metadata, arrays in rows:
            with self._hub.error_boundary.guard("gradient readback"):
                self.step_processor(metadata, arrays)
            self._report_progress()
        self._judge()

    def compared(self, comparisons: Sequence[ReplicasCompared]) -> None:
        """Record comparisons with other ranks, and judge them; call from the worker's thread."""
        for comparison in comparisons:
            self._hub.record(comparison)
        with self._hub.error_boundary.guard("rules"):
            for env_id in dict.fromkeys(each.env_id for each in comparisons):
                found = self._tracker(env_id).rules.compared([each for each in comparisons if each.env_id == env_id])
                self._emit_findings(found, env_id)

    def _record(self, measurement: Measurement) -> None:
        self._hub.record(measurement)
        self._measurements.append(measurement)
        if isinstance(measurement, StepMeasured) and measurement.primary and measurement.epoch_ids is None:
            self._outside = measurement

    def _report_progress(self) -> None:
        """Report a step outside epochs where that is due, with the flags after this very step."""
        step, self._outside = self._outside, None
        if step is not None and self.progress is not None and self.progress.due(step):
            self._judge()
            with self._hub.error_boundary.guard("progress"):
                self.progress.report(step)

    def _judge(self) -> None:
        measurements, self._measurements = self._measurements, []
        with self._hub.error_boundary.guard("rules"):
            self._apply_rules(measurements)

    def _apply_rules(self, measurements: Sequence[Measurement]) -> None:
        """Apply the rules to measurements, and emit the findings in the order of their time."""
        steps: defaultdict[str | None, list[StepMeasured]] = defaultdict(list)
        samples: defaultdict[str | None, list[GradientsMeasured]] = defaultdict(list)
        skips: defaultdict[str | None, list[StepSkipped]] = defaultdict(list)
        for measurement in measurements:
            if isinstance(measurement, StepMeasured):
                steps[measurement.env_id].append(measurement)
            elif isinstance(measurement, GradientsMeasured):
                samples[measurement.env_id].append(measurement)
            elif isinstance(measurement, StepSkipped):
                skips[measurement.env_id].append(measurement)
        findings: list[tuple[str | None, Finding]] = []
        for env_id in {**steps, **samples, **skips}:
            found = self._tracker(env_id).rules.judge(steps[env_id], samples[env_id], skips[env_id])
            findings += [(env_id, finding) for finding in found]
        for env_id, finding in sorted(findings, key=lambda pair: pair[1].time_unix_nano):
            self._emit_findings([finding], env_id)
