"""Console backend: one line per epoch, seed event and finding; without epochs, a line about progress from time to time."""

from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import IO, TYPE_CHECKING, Any, Final

from nissa.backends.terminal import Console, Text
from nissa.events import EventType, Severity, Stage
from nissa.hub.measurements import ProgressMeasured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nissa.events import TelemetryEvent

STAGE_STYLES: Final = {
    Stage.DORMANT: "dim",
    Stage.GERMINATED: "bright_blue",
    Stage.TRAINING: "cyan",
    Stage.BLENDING: "yellow",
    Stage.SHADOWING: "bright_magenta",
    Stage.PROBATIONARY: "magenta",
    Stage.FOSSILIZED: "green",
    Stage.CULLED: "red",
    Stage.EMBARGOED: "bright_red",
    Stage.RESETTING: "dim",
}
ABSENT: Final = "—"
_WHOLE: Final = 100
"""Rates from this on are printed without decimals."""

_MOST_LAYERS: Final = 5
"""Layers of a finding that are printed."""

_SEVERITY_STYLES: Final = {Severity.WARNING: "yellow", Severity.ERROR: "red", Severity.CRITICAL: "bold red"}


class ConsoleBackend:
    """Prints epochs, seed events and findings.

    Args:
        stream: Output stream; None is standard error, so that what the script prints stays its own.
        color: Use colours; None uses them if the stream is a terminal.
        closing: Line that `close` prints; None prints none.
    """

    name = "console"
    receives = (ProgressMeasured,)

    def __init__(self, stream: IO[str] | None = None, *, color: bool | None = None, closing: str | None = None) -> None:
        self._closing = closing
        self._console = Console(
            file=stream, stderr=True, force_terminal=color, no_color=color is False, highlight=False, soft_wrap=True
        )
        self._lines: dict[str, Any] = {
            EventType.EPOCH_COMPLETED: epoch_line,
            EventType.SEED_GERMINATED: _germinated,
            EventType.SEED_FOSSILIZED: _fossilized,
            EventType.SEED_CULLED: _culled,
            EventType.PLATEAU_DETECTED: _finding,
            EventType.PERFORMANCE_DEGRADATION: _finding,
            EventType.RED_FLAG_RAISED: _finding,
        }

    def emit(self, event: "TelemetryEvent") -> None:
        """Print the event if its type has a line format or its transition was refused; ignore others."""
        if event.refused is not None:
            line: Text | None = Text(f"{_where(event)}refused: {event.refused}", style="yellow")
        else:
            make = self._lines.get(event.event_type)
            line = make(event) if make else None
        if line is not None:
            self._console.print(line)

    def record(self, progress: ProgressMeasured) -> None:
        """Print the progress of a loop without epochs."""
        self._console.print(progress_line(progress))

    def close(self, _timeout: float) -> None:
        """Print the closing line."""
        if self._closing is not None:
            with suppress(OSError, ValueError):  # standard error may be closed by now
                self._console.print(Text(self._closing))


def location_line(run_id: str, directory: "Path | None", destination: str | None) -> str:
    """Return where the telemetry of a run is and how to view it.

    Args:
        run_id: Identity of the run.
        directory: Absolute path of the folder with the run's files; None if there are none.
        destination: Where the telemetry goes; None if nowhere.
    """
    if directory is not None:
        shown = str(_from_here(directory))
        return f"nissa: the telemetry of run {run_id} is in {shown}; view it with: nissa report {quote(shown)}"
    if destination is None:
        return f"nissa: run {run_id} has exported nothing, because OTEL_SDK_DISABLED is set"
    return f"nissa: the telemetry of run {run_id} goes to {destination}; search there for nissa.run.id={run_id}"


def _from_here(directory: Path) -> Path:
    """Return a path relative to the working directory, which at the start of a run is that of the shell."""
    with suppress(OSError, ValueError):  # the working directory was removed, or the path is elsewhere
        return directory.relative_to(Path.cwd())
    return directory


def epoch_line(event: "TelemetryEvent") -> Text:
    """Return an epoch as one line; values that were not measured are a dash."""
    data = event.data
    parts = [
        f"{_where(event)}epoch {ABSENT if event.epoch is None else event.epoch}",
        f"loss {_number(data.get('train_loss'))} -> {_number(data.get('validation_loss'))}",
        f"accuracy {_percent(data.get('validation_accuracy'))}",
    ]
    seeds = data.get("seeds")
    if seeds and isinstance(seeds, dict):
        parts.append("seeds " + ", ".join(f"{count} {stage}" for stage, count in seeds.items()))
    if data.get("narrative"):
        parts.append(str(data["narrative"]))
    if data.get("error"):
        parts.append(f"ended by {data['error']}")
    return Text(" · ".join(parts))


def progress_line(progress: ProgressMeasured) -> Text:
    """Return the progress of a loop without epochs as one line; values that were not measured are a dash.

    Example:
        ``step 1,200 · loss 2.310 · 45.3 steps/s · loss_spike``
    """
    rate = progress.steps_per_second
    parts = [
        f"{_environment(progress.env_id)}step {progress.step:,}",
        f"loss {_number(progress.loss)}",
        f"{ABSENT if rate is None else format(rate, ',.0f' if rate >= _WHOLE else '.3g')} steps/s",
        ", ".join(progress.red_flags) or "no findings",
    ]
    return Text(" · ".join(parts))


def _germinated(event: "TelemetryEvent") -> Text:
    parameters = event.seed.parameters if event.seed else None
    size = "" if parameters is None else f", {parameters:,} parameters"
    return _seed_line(event, "germinated", size)


def _fossilized(event: "TelemetryEvent") -> Text:
    return _seed_line(event, "fossilized", _points(event))


def _culled(event: "TelemetryEvent") -> Text:
    reason = event.data.get("reason")
    return _seed_line(event, "culled", _points(event) + (f": {reason}" if reason else ""))


def _seed_line(event: "TelemetryEvent", what: str, rest: str) -> Text:
    blueprint = event.seed.blueprint_id if event.seed else None
    line = Text(f"{_where(event)}seed {event.seed_id} ({blueprint or ABSENT}) ")
    line.append(what, style=STAGE_STYLES.get(event.seed.stage, "") if event.seed else "")
    return line.append(rest)


def _finding(event: "TelemetryEvent") -> Text:
    what = event.message or event.event_type.replace("_", " ").lower()
    return Text(f"{_where(event)}{what}{_evidence(event.data)}", style=_SEVERITY_STYLES.get(event.severity, ""))


def _evidence(data: "Mapping[str, Any]") -> str:
    """Return layers, facts and first step of a finding, with a space before it; empty without any.

    Example:
        `` [layers: 0.weight, 2.weight, +5; lr=0; since step 120]``
    """
    layers, facts = data.get("layers"), data.get("evidence")
    parts = []
    if isinstance(layers, list) and layers:
        total = data.get("layer_count")
        more = total - len(layers[:_MOST_LAYERS]) if isinstance(total, int) else 0
        parts.append("layers: " + ", ".join([*map(str, layers[:_MOST_LAYERS]), *([f"+{more}"] if more > 0 else [])]))
    if isinstance(facts, list):
        parts += map(str, facts[1:])  # the first is the observation, which the message has
    if data.get("first_step") is not None:
        parts.append(f"since step {data['first_step']}")
    return f" [{'; '.join(parts)}]" if parts else ""


def _where(event: "TelemetryEvent") -> str:
    return _environment(event.env_id)


def _environment(env_id: str | None) -> str:
    return "" if env_id is None else f"[env {env_id}] "


def _points(event: "TelemetryEvent") -> str:
    improvement = event.seed.improvement if event.seed else None
    return "" if improvement is None else f", {improvement * 100:+.2f} points"


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ABSENT


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else ABSENT
