"""Everything that the runs of a test have exported, in memory or in the folder of a run."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from nissa.recordings.folders import is_folder, recorded_files
from nissa.recordings.sources import recorded_lines
from nissa.testing.records import points_of, records_of, spans_of
from nissa.testing.selections import Events, Findings, Metrics, Records, Spans

if TYPE_CHECKING:
    from nissa.diagnostics.finding import Finding
    from nissa.events import TelemetryEvent
    from nissa.hub.measurements import Measurement
    from nissa.recordings.jsonl_reader import DamagedLine

Lines = Callable[[str], Iterator[Any]]
"""Returns the OTLP JSON lines of a signal: ``traces``, ``metrics`` or ``logs``."""

_FLUSH_SECONDS: Final = 30.0


class Collected:
    """Backend that keeps events, measurements and findings.

    Attributes:
        events: Every event, in order.
        measurements: Every measurement, in order.
        findings: Every finding, in order.
    """

    receives = (object,)  # findings too, which backends receive only on request

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []
        self.measurements: list[Measurement] = []
        self.findings: list[Finding] = []

    def emit(self, event: "TelemetryEvent") -> None:
        """Keep an event."""
        self.events.append(event)

    def record(self, item: "Measurement | Finding") -> None:
        """Keep a measurement or finding."""
        from nissa.diagnostics.finding import Finding  # noqa: PLC0415 - torch is imported by then

        if isinstance(item, Finding):
            self.findings.append(item)
        else:
            self.measurements.append(item)


class Telemetry:
    """Spans, metrics, events, findings and log records of the runs of a test; see `nissa.testing.capture`.

    Each property exports first what is still on its way, so that it contains everything that happened before. Runs may be
    active or ended.

    Args:
        lines: Returns the exported lines of a signal.
        collected: Events and findings.
    """

    def __init__(self, lines: Lines, collected: Collected) -> None:
        self._lines = lines
        self._collected = collected

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Return the spans, metrics and log records in the folder of a run that wrote files; it has no events.

        Raises:
            ConfigurationError: The folder does not exist, or has no telemetry.
            ValueError: A line is damaged.
        """
        files = recorded_files(folder)

        def lines(signal: str) -> Iterator[Any]:
            return _of_files([each for each in files if is_folder(each) or each.name.startswith(signal)])

        return cls(lines, Collected())

    @property
    def spans(self) -> Spans:
        """Ended spans, and those named ``<name>.started`` that announce open ones."""
        return Spans(spans_of(self._exported("traces")))

    @property
    def metrics(self) -> Metrics:
        """Data points of all metrics."""
        return Metrics(points_of(self._exported("metrics")))

    @property
    def logs(self) -> Records:
        """Log records, and OpenTelemetry Events such as ``nissa.narrative``."""
        return Records(records_of(self._exported("logs")))

    @property
    def events(self) -> Events:
        """Events of Nissa, in the order in which they were emitted."""
        self.flush()
        return Events(self._collected.events)

    @property
    def findings(self) -> Findings:
        """Findings, in the order in which rules and contracts reported them."""
        self.flush()
        return Findings(self._collected.findings)

    @property
    def measurements(self) -> "list[Measurement]":
        """Measurements as backends receive them (`nissa.hub.measurements`), in their order."""
        self.flush()
        return list(self._collected.measurements)

    def flush(self) -> None:
        """Export everything that happened so far. The properties call this.

        Raises:
            TimeoutError: It takes more than 30 seconds.
        """
        if "nissa.run.run" not in sys.modules:  # no run has been started
            return
        import nissa  # noqa: PLC0415 - the package imports nothing before a test needs it

        run = nissa.current_run()
        if not (nissa.get_hub().flush(_FLUSH_SECONDS) if run is None else run.flush(_FLUSH_SECONDS)):
            raise TimeoutError(f"Telemetry is not exported after {_FLUSH_SECONDS:g} s; a backend or the device hangs.")

    def _exported(self, signal: str) -> Iterator[Any]:
        self.flush()
        return self._lines(signal)


def in_memory(blocks: list[bytes]) -> Iterator[Any]:
    """Yield the parsed lines of blocks of lines."""
    return (json.loads(line) for block in list(blocks) for line in block.splitlines())


def _of_files(paths: list[Path]) -> Iterator[Any]:
    damaged: list[DamagedLine] = []
    for path in paths:
        yield from (line.value for line in recorded_lines(path, damaged))
    if damaged:
        raise ValueError(f"Damaged lines: {', '.join(map(str, damaged))}.")
