"""Reference page of load: what an event costs, and what became of many of them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.facts import read
from tests.stack.load.figures import INTO

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def load(table: Table, results: Path) -> str:
    """Return the page.

    Args:
        table: Returns a table, given a header and rows.
        results: Folder with ``events.csv`` and ``load.csv``.
    """
    events, loads = read(results / "events.csv"), read(results / "load.csv")
    return (
        "# Load\n\n"
        "## Cost of an event\n\n"
        "Processor time of the emitting thread per event, as a median with its 95 % interval. A flat event has eight entries, and "
        "four backends that do nothing; a change of stage goes through the state table of a run. The conversion of a foreign mapping "
        f"checks each value. {_measured(events)}, by `python -m benchmarks.events`.\n\n"
        + table(("event", "microseconds", "interval"), _events(events))
        + "\n\n## Many at once\n\n"
        "Through the real collector into Prometheus and Jaeger. A trace is complete if Jaeger has the spans of the seed's stages and of "
        f"its whole life. {_measured(loads)}, by `{INTO}=benchmarks/results/load.csv make test-full ARGS=tests/stack/load`.\n\n"
        + table(("load", "measured"), ((row["what"], row["measured"]) for row in loads))
    )


def _events(rows: Iterable[dict[str, str]]) -> Iterable[Sequence[str]]:
    for row in rows:
        yield row["case"], row["emit_us"], f"{row['emit_us_low']} to {row['emit_us_high']}"


def _measured(rows: Iterable[dict[str, str]]) -> str:
    commits = sorted({f"commit {row['commit']} on {row['date']}" for row in rows})
    return f"Measured at {', '.join(commits) or 'no commit'}"
