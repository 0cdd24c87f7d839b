"""What a person sees while the demo runs: a live view on a terminal, a line per epoch elsewhere."""

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
"""Columns from which the environments stand side by side."""

SPARKS = "▁▂▃▄▅▆▇█"
SPARKS_SHOWN = 24
BAR_WIDTH = 10
HEALTHY = 0.8
POOR = 0.5


class Display(Protocol):
    """Shows how a demo goes; used in a ``with`` statement."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop showing."""

    def environment_done(self) -> None:
        """Show that one environment has ended an epoch."""

    def epoch_done(self, epoch: int) -> None:
        """Show that all of them have."""


class Silent:
    """Shows nothing: somebody wants JSON, and nothing else."""

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Stop showing."""

    def environment_done(self) -> None:
        """Show that one environment has ended an epoch."""

    def epoch_done(self, epoch: int) -> None:
        """Show that all of them have."""


class Plain(Silent):
    """Prints a line per epoch.

    Args:
        console: Where to.
        trainers: What to show.
        epochs: How many epochs there will be.
    """

    def __init__(self, console: "Console", trainers: "Sequence[Trainer]", epochs: int) -> None:
        self._console, self._trainers, self._epochs = console, trainers, epochs

    def epoch_done(self, epoch: int) -> None:
        """Print each environment's accuracy, and what happened to its seeds."""
        parts = [f"epoch {epoch + 1}/{self._epochs}"]
        for trainer in self._trainers:
            parts.append(f"env {trainer.env_id} accuracy {trainer.accuracies[-1]:.1%}")
            parts += [_moved(graft, epoch) for graft in trainer.grafts if epoch in graft.stage_epochs.values()]
        self._console.print(" · ".join(parts), soft_wrap=True, highlight=False)


class Screen:
    """Redraws progress, seeds, gradients and narratives in place after each epoch.

    Args:
        console: A terminal.
        trainers: What to show.
        epochs: How many epochs there will be.
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
        """Begin to draw."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Leave the last drawing where it is."""
        self._live.stop()

    def environment_done(self) -> None:
        """Draw again."""
        self._progress.advance(self._task)
        self._live.update(self._draw(), refresh=True)

    def epoch_done(self, epoch: int) -> None:
        """Draw nothing: each environment has been drawn already."""

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
    """Return an environment as a panel with at most ``rows`` seeds."""
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
    """Return the newest values as a row of bars between their own extremes."""
    shown = values[-SPARKS_SHOWN:]
    if not shown:
        return Text(ABSENT)
    low, span = min(shown), max(shown) - min(shown) or 1.0
    bars = "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in shown)
    return Text(bars.ljust(SPARKS_SHOWN), style="blue")


def health_bar(score: float | None) -> Text:
    """Return a gradient health score as a bar; what was not measured is a dash."""
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
    for graft in _most_telling(grafts, rows):
        stage = Text(graft.stage.label, style=STAGE_STYLES[graft.stage])
        seed = graft.handle.seed_id
        table.add_row(seed, graft.blueprint, graft.slot, stage, f"{graft.alpha:.2f}", points(graft.change))
    return table


def _most_telling(grafts: "Sequence[Graft]", rows: int) -> "list[Graft]":
    surplus = max(0, len(grafts) - rows)
    ended = [graft for graft in grafts if graft.stage in FINAL][:surplus]
    return [graft for graft in grafts if graft not in ended][-rows:]


def points(change: float | None) -> Text:
    """Return a change of accuracy in percentage points; what was not measured is a dash."""
    if change is None:
        return Text(ABSENT)
    return Text(f"{change * 100:+.2f}", style="green" if change > 0 else "red")


def _moved(graft: "Graft", epoch: int) -> str:
    stages = [stage for stage, entered in graft.stage_epochs.items() if entered == epoch]
    change = "" if graft.improvement is None else f" {graft.improvement * 100:+.2f} points"
    return f"{graft.handle.seed_id} ({graft.blueprint}) {stages[-1]}{change}"
