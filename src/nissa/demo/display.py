"""Progress output of the demo: a live view on a terminal, otherwise one line per epoch."""

from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nissa.backends.console import ABSENT, STAGE_STYLES
from nissa.seeds.stages import FINAL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console, RenderableType

    from nissa.demo.graft import Graft
    from nissa.demo.trainer import Trainer

SIDE_BY_SIDE_WIDTH = 130
"""Minimum terminal width, in characters, to show the environments side by side."""

SPARKS = "▁▂▃▄▅▆▇█"
SPARKS_SHOWN = 24
BAR_WIDTH = 10
HEALTHY = 0.8
POOR = 0.5


class Display(Protocol):
    """Progress output as a context manager."""

    def __enter__(self) -> Self:
        """Start the output."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop the output."""

    def environment_done(self) -> None:
        """Update after an epoch of one environment."""

    def epoch_done(self, epoch: int) -> None:
        """Update after an epoch of all environments."""


class Silent:
    """Output nothing; used with ``--json``, where standard output must be valid JSON."""

    def __enter__(self) -> Self:
        """Start the output."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop the output."""

    def environment_done(self) -> None:
        """Update after an epoch of one environment."""

    def epoch_done(self, epoch: int) -> None:
        """Update after an epoch of all environments."""


class Plain(Silent):
    """Print one line per epoch.

    Args:
        console: Console to print to.
        trainers: Trainers to show.
        epochs: Total number of epochs.
    """

    def __init__(self, console: "Console", trainers: "Sequence[Trainer]", epochs: int) -> None:
        self._console, self._trainers, self._epochs = console, trainers, epochs

    def epoch_done(self, epoch: int) -> None:
        """Print the accuracy of each environment, and the stage changes of its seeds."""
        parts = [f"epoch {epoch + 1}/{self._epochs}"]
        for trainer in self._trainers:
            parts.append(f"env {trainer.env_id} accuracy {trainer.accuracies[-1]:.1%}")
            parts += [_moved(graft, epoch) for graft in trainer.grafts if epoch in graft.stage_epochs.values()]
        self._console.print(" · ".join(parts), soft_wrap=True, highlight=False)


class Screen:
    """Live terminal view of progress, seeds, gradients and narratives, redrawn after each epoch.

    Args:
        console: Terminal to draw on.
        trainers: Trainers to show.
        epochs: Total number of epochs.
    """

    def __init__(self, console: "Console", trainers: "Sequence[Trainer]", epochs: int) -> None:
        self._console, self._trainers = console, trainers
        self._progress = Progress(
            TextColumn("[bold]nissa demo"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("epochs", total=epochs * len(trainers))
        self._live = Live(self._draw(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        """Start the live view."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop the live view; the last frame stays on the terminal."""
        self._live.stop()

    def environment_done(self) -> None:
        """Redraw the view."""
        self._progress.advance(self._task)
        self._live.update(self._draw(), refresh=True)

    def epoch_done(self, epoch: int) -> None:
        """Do nothing: ``environment_done`` has already redrawn the view."""

    def _draw(self) -> "RenderableType":
        wide = self._console.width >= SIDE_BY_SIDE_WIDTH
        rows = self._console.height - 8 if wide else self._console.height // len(self._trainers) - 7
        panels = [environment_panel(trainer, rows=max(3, rows)) for trainer in self._trainers]
        if not wide:
            return Group(self._progress, *panels)
        grid = Table.grid(expand=True)
        for _ in panels:
            grid.add_column(ratio=1)
        grid.add_row(*panels)
        return Group(self._progress, grid)


def environment_panel(trainer: "Trainer", *, rows: int) -> Panel:
    """Return the panel of an environment, with at most ``rows`` seeds."""
    latest = trainer.history[-1] if trainer.history else None
    norms = [result.gradient_norm for result in trainer.history if result.gradient_norm is not None]
    lines = Table.grid(padding=(0, 1))
    lines.add_row("accuracy", spark(trainer.accuracies), f"{latest.accuracy:.1%}" if latest else ABSENT)
    lines.add_row("gradients", spark(norms), health_bar(latest.gradient_health if latest else None))
    narrative = Text(latest.narrative if latest else ABSENT, style="italic", no_wrap=True, overflow="ellipsis")
    return Panel(
        Group(lines, narrative, _seed_table(trainer.grafts, rows)),
        title=f"environment {trainer.env_id}",
        title_align="left",
    )


def spark(values: "Sequence[float]") -> Text:
    """Return a sparkline of the newest values, scaled to their minimum and maximum."""
    shown = values[-SPARKS_SHOWN:]
    if not shown:
        return Text(ABSENT)
    low, span = min(shown), max(shown) - min(shown) or 1.0
    bars = "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in shown)
    return Text(bars.ljust(SPARKS_SHOWN), style="blue")


def health_bar(score: float | None) -> Text:
    """Return a gradient health score as a bar; None becomes a dash."""
    if score is None:
        return Text(ABSENT)
    style = "green" if score >= HEALTHY else "yellow" if score >= POOR else "red"
    full = round(score * BAR_WIDTH)
    return Text(f"{'█' * full}{'░' * (BAR_WIDTH - full)} health {score:.2f}", style=style)


def _seed_table(grafts: "Sequence[Graft]", rows: int) -> Table:
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False)
    for heading in ("seed", "blueprint", "slot", "stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("alpha", "Δ accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for graft in _displayed(grafts, rows):
        stage = Text(graft.stage.label, style=STAGE_STYLES[graft.stage])
        seed = graft.handle.seed_id
        table.add_row(seed, graft.blueprint, graft.slot, stage, f"{graft.alpha:.2f}", points(graft.change))
    return table


def _displayed(grafts: "Sequence[Graft]", rows: int) -> "list[Graft]":
    # If the panel is too small, hide seeds that have ended before active ones.
    surplus = max(0, len(grafts) - rows)
    ended = [graft for graft in grafts if graft.stage in FINAL][:surplus]
    return [graft for graft in grafts if graft not in ended][-rows:]


def points(change: float | None) -> Text:
    """Format a change of accuracy in percentage points; None becomes a dash."""
    if change is None:
        return Text(ABSENT)
    return Text(f"{change * 100:+.2f}", style="green" if change > 0 else "red")


def _moved(graft: "Graft", epoch: int) -> str:
    stages = [stage for stage, entered in graft.stage_epochs.items() if entered == epoch]
    change = "" if graft.improvement is None else f" {graft.improvement * 100:+.2f} points"
    return f"{graft.handle.seed_id} ({graft.blueprint}) {stages[-1]}{change}"
