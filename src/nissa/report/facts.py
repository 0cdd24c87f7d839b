"""What a recording says about a run as a whole, gathered once."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import numpy as np

from nissa.charts.series import Series
from nissa.recordings import Recording, Stream
from nissa.report.clock import Clock
from nissa.report.lives import Life, lives
from nissa.report.places import Place, Places
from nissa.report.told import Ending, Finding, Narrative, ending, findings, narratives
from nissa.semconv import attributes as attr
from nissa.semconv.metrics import MetricSpec

_SERVICE: Final = "service.name"


@dataclass(frozen=True)
class Facts:
    """What all sections of a report draw from.

    Args:
        recording: What was written.
        source: Name of the folder.
    """

    recording: Recording
    source: str

    @cached_property
    def places(self) -> Places:
        """How places are called."""
        return Places.of(self.recording)

    @cached_property
    def clock(self) -> Clock:
        """Which step it was when."""
        return Clock(self.recording)

    @cached_property
    def lives(self) -> list[Life]:
        """The seeds."""
        return lives(self.recording)

    @cached_property
    def findings(self) -> list[Finding]:
        """What was found."""
        return findings(self.recording)

    @cached_property
    def narratives(self) -> list[Narrative]:
        """What training looked like."""
        return narratives(self.recording)

    @cached_property
    def ending(self) -> Ending:
        """How the run ended."""
        return ending(self.recording)

    @cached_property
    def begin(self) -> int:
        """When anything was recorded first, nanoseconds."""
        return min(self._times, default=0)

    @cached_property
    def end(self) -> int:
        """When anything was recorded last, nanoseconds."""
        return max(self._times, default=0)

    @cached_property
    def _times(self) -> list[int]:
        times = [record.time for record in self.recording.logs]
        times += [time for span in self.recording.spans for time in (span.start, span.end)]
        times += [int(time) for stream in self.recording.streams for time in (stream.times[0], stream.times[-1])]
        return [time for time in times if time]

    def resource(self, name: str) -> str:
        """Return an attribute of the processes, all values of it; empty where none has it."""
        values = {str(process.attributes[name]) for process in self.recording.processes if name in process.attributes}
        return ", ".join(sorted(values))

    @property
    def run_id(self) -> str:
        """The run's identity, else the folder's name."""
        return self.resource(attr.RUN_ID) or self.source

    @property
    def service(self) -> str:
        """The service's name."""
        return self.resource(_SERVICE)

    def streams(self, spec: MetricSpec) -> list[tuple[Place, Stream]]:
        """Return a metric's streams, by place."""
        found = [(Place.of(stream.attributes, stream.process), stream) for stream in self.recording.of(spec.name)]
        return sorted(found, key=lambda pair: pair[0])

    def series(self, place: Place, stream: Stream, name: str, *, hue: int = 0, sparse: bool = False) -> Series:
        """Return a stream as a series to draw."""
        steps = self.clock.steps(place, stream.times) if self.clock.known else None
        return Series(
            name=name,
            times=stream.times,
            values=stream.values,
            steps=None if steps is None or np.isnan(steps).all() else steps,
            group=self.places.group(place.env),
            hue=hue,
            sparse=sparse,
        )


def clock_time(time: int) -> str:
    """Return a time of day (UTC)."""
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%H:%M:%S")


def date_time(time: int) -> str:
    """Return a time (UTC)."""
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(nanoseconds: int) -> str:
    """Return how long something took, in the two units that matter."""
    seconds = nanoseconds / 1e9
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // part)} {smaller}"
    return f"{seconds:.1f} s"
