"""Analytics as rich tables; absent values are shown as ``n/a``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from nissa.analytics.records import BlueprintStats

ABSENT = "n/a"


def summary(stats: "Mapping[str, BlueprintStats]", multipliers: "Mapping[str, float | None]") -> "Table":
    """Return a table with a row per blueprint; accuracies are in percentage points."""
    from rich import box  # noqa: PLC0415 - imported only to print a table
    from rich.table import Table  # noqa: PLC0415 - see above

    # No lines between columns, so that the table fits into 80 characters.
    table = Table(title="Blueprints", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Blueprint", no_wrap=True)
    for head in ("Seeds", "Kept", "Culled", "Rate", "Accuracy", "Churn", "Blending", "Cost"):
        table.add_column(head, justify="right")
    for name, each in stats.items():
        counts = (str(each.germinated), str(each.fossilized), str(each.culled))
        deltas = (points(mean.value) for mean in (each.accuracy_delta, each.churn, each.blending_delta))
        table.add_row(name, *counts, percent(each.fossilization_rate), *deltas, times(multipliers[name]))
    return table


def scoreboard(env: str, board: "Mapping[str, Any]") -> "Table":
    """Return a table of an environment's part of `BlueprintAnalytics.snapshot`, one row per quantity."""
    from rich.table import Table  # noqa: PLC0415 - see above

    table = Table(title=f"Environment {env}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value")
    share = board["parameters_share"]
    added = f"{board['parameters_added']:,} parameters, {percent(share)} of the host"
    table.add_row("Fossilized", f"{board['fossilized']} ({added})")
    table.add_row("Culled", str(board["culled"]))
    table.add_row("Germinated", str(board["germinated"]))
    table.add_row("Live", ", ".join(board["live"].values()) or "none")
    ages = (board["mean_fossilize_age_epochs"], board["mean_cull_age_epochs"])
    table.add_row("Mean age", "fossilized {}, culled {} epochs".format(*map(number, ages)))
    unknown = f", without {', '.join(board['unknown_cost'])}" if board["unknown_cost"] else ""
    table.add_row("Compute cost", f"{times(board['compute_cost'])} of the host{unknown}")
    spread = ", ".join(f"{name} {count}" for name, count in sorted(board["distribution"].items()) if count)
    table.add_row("Distribution", spread or "none")
    return table


def points(value: float | None) -> str:
    """Return an accuracy difference in percentage points."""
    return ABSENT if value is None else f"{value * 100:+.2f}"


def percent(value: float | None) -> str:
    """Return a fraction in percent."""
    return ABSENT if value is None else f"{value:.1%}"


def times(value: float | None) -> str:
    """Return a multiplier."""
    return ABSENT if value is None else f"{value:.2f}x"


def number(value: float | None) -> str:
    """Return a number with one decimal."""
    return ABSENT if value is None else f"{value:.1f}"
