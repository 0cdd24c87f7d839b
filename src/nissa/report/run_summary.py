"""Summary of a run: values derived from a recording, computed once and used by all sections of the report."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import numpy as np

from nissa.charts.series import Series
from nissa.events import EventType
from nissa.recordings import LogRecord, Recording, Stream
from nissa.report.clock import Clock
from nissa.report.recorded_findings import RecordedFinding, RecordedNarrative, event_name, findings, narratives
from nissa.report.run_outcome import RunOutcome, outcome
from nissa.report.seed_timelines import SeedTimeline, timelines
from nissa.report.series_keys import SeriesKey, SeriesNames
from nissa.semconv import attributes as attr
from nissa.semconv.metrics import MetricSpec

_SERVICE: Final = "service.name"


@dataclass(frozen=True)
class RunSummary:
    """Derived values of a recording; each is computed at first access and cached.

    Args:
        recording: Recorded telemetry of the run.
        source: Name of the run's folder.
    """

    recording: Recording
    source: str

    @cached_property
    def names(self) -> SeriesNames:
        """Display names of environments, models and ranks."""
        return SeriesNames.of(self.recording)

    @cached_property
    def clock(self) -> Clock:
        """Mapping from time to optimizer step."""
        return Clock(self.recording)

    @cached_property
    def timelines(self) -> list[SeedTimeline]:
        """Timelines of all seeds."""
        return timelines(self.recording)

    @cached_property
    def findings(self) -> list[RecordedFinding]:
        """Findings of the run."""
        return findings(self.recording)

    @cached_property
    def narratives(self) -> list[RecordedNarrative]:
        """Narratives of the validations."""
        return narratives(self.recording)

    @cached_property
    def ending(self) -> RunOutcome:
        """Outcome of the run."""
        return outcome(self.recording)

    @cached_property
    def descriptions(self) -> list[LogRecord]:
        """Events that describe the processes of the run."""
        name = event_name(EventType.PROCESS_DESCRIBED)
        return [record for record in self.recording.logs if record.name == name]

    @cached_property
    def begin(self) -> int:
        """Time of the first record, nanoseconds since the Unix epoch."""
        return min(self._times, default=0)

    @cached_property
    def end(self) -> int:
        """Time of the last record, nanoseconds since the Unix epoch."""
        return max(self._times, default=0)

    @cached_property
    def _times(self) -> list[int]:
        times = [record.time for record in self.recording.logs]
        times += [time for span in self.recording.spans for time in (span.start, span.end)]
        times += [int(time) for stream in self.recording.streams for time in (stream.times[0], stream.times[-1])]
        return [time for time in times if time]

    def resource(self, name: str) -> str:
        """Return all values of a resource attribute, joined by commas; empty if no process has it."""
        values = {str(process.attributes[name]) for process in self.recording.processes if name in process.attributes}
        return ", ".join(sorted(values))

    @property
    def run_id(self) -> str:
        """Id of the run, or the folder's name if no id was recorded."""
        return self.resource(attr.RUN_ID) or self.source

    @property
    def service(self) -> str:
        """Resource attribute ``service.name``."""
        return self.resource(_SERVICE)

    def streams(self, spec: MetricSpec) -> list[tuple[SeriesKey, Stream]]:
        """Return the streams of a metric, sorted by environment, model and rank."""
        found = [(SeriesKey.of(stream.attributes, stream.process), stream) for stream in self.recording.of(spec.name)]
        return sorted(found, key=lambda pair: pair[0])

    def series(self, series_key: SeriesKey, stream: Stream, name: str, *, hue: int = 0, sparse: bool = False) -> Series:
        """Convert a stream to a chart series."""
        steps = self.clock.steps(series_key, stream.times) if self.clock.known else None
        return Series(
            name=name,
            times=stream.times,
            values=stream.values,
            steps=None if steps is None or np.isnan(steps).all() else steps,
            group=self.names.group(series_key.env),
            hue=hue,
            sparse=sparse,
        )


def clock_time(time: int) -> str:
    """Format a time as time of day (UTC)."""
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%H:%M:%S")


def date_time(time: int) -> str:
    """Format a time as date and time (UTC)."""
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(nanoseconds: int) -> str:
    """Format a duration in its two largest units, such as ``2 h 5 min``."""
    seconds = nanoseconds / 1e9
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // part)} {smaller}"
    return f"{seconds:.1f} s"
