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
        "Processor time of the emitting thread per event, as a median with its 95 % interval. The creation of an event is the baseline: "
        "the machine's speed varies by a factor of two. A flat event has eight entries, and four backends that do nothing; a foreign "
        "mapping of the same entries is converted. A change of stage goes through the state table of a run, and includes the creation "
        f"of its event. {_measured(events)}, by `python -m benchmarks.events`.\n\n"
        + table(("event", "microseconds", "interval", "of the baseline"), _events(events))
        + "\n\n## Many at once\n\n"
        "Through the real collector into Prometheus and Jaeger. A trace is complete if Jaeger has the spans of the seed's stages and of "
        f"its whole life. {_measured(loads)}, by `{INTO}=benchmarks/results/load.csv make test-full ARGS=tests/stack/load`.\n\n"
        + table(("load", "measured"), ((row["what"], row["measured"]) for row in loads))
    )


def _events(rows: Iterable[dict[str, str]]) -> Iterable[Sequence[str]]:
    baseline: float | None = None
    for row in rows:
        micros = float(row["emit_us"])
        baseline = baseline or micros
        yield row["case"], row["emit_us"], f"{row['emit_us_low']} to {row['emit_us_high']}", f"{micros / baseline:.1f}"


def _measured(rows: Iterable[dict[str, str]]) -> str:
    commits = sorted({f"commit {row['commit']} on {row['date']}" for row in rows})
    return f"Measured at {', '.join(commits) or 'no commit'}"
