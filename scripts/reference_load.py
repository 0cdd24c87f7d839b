"""Reference page of load: what an event costs, and what became of many of them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.event_rate import BASELINE
from benchmarks.events import CREATION, JSON
from benchmarks.facts import read
from tests.stack.load.figures import INTO

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def load(table: Table, results: Path) -> str:
    """Return the page.

    Args:
        table: Returns a table, given a header and rows.
        results: Folder with ``events.csv``, ``event_rate.csv`` and ``load.csv``.
    """
    events, rates, loads = (read(results / f"{name}.csv") for name in ("events", "event_rate", "load"))
    return (
        "# Load\n\n"
        "## Cost of an event\n\n"
        "Processor time of the emitting thread per event, as a median with its 95 % interval. The machine's speed varies by a factor of "
        "two, so the table also has the ratio to the creation of an event, and to the encoding of its payload as JSON, which no code of "
        "Nissa takes part in. A flat event has eight entries, and four backends that do nothing; a foreign "
        "mapping of the same entries is converted. The events of a seed go through the state table of a run, and include their "
        f"creation. {_measured(events)}, by `python -m benchmarks.events`.\n\n"
        + table(("event", "microseconds", "interval", "of the creation", "of JSON"), _events(events))
        + "\n\n## Sustained rate\n\n"
        "Events that are created, emitted, stored by a memory backend and written by a file backend, from the first call of `emit` to the "
        "last line of the file. The threads emit without a pause: the backends must keep up with them. The baseline creates the same "
        "events and encodes them as JSON, without a hub. Rates are medians, with a 95 % interval. All threads share the interpreter's "
        f"lock; other programs of the machine change the rate per second of processor time less. {_measured(rates)}{_busy(rates)}, by `python -m benchmarks.event_rate`.\n\n"
        + table(
            (
                "emitting",
                "events per second",
                "interval",
                "per second of processor time",
                "of the baseline",
                "longest queue",
                "lost",
            ),
            _rates(rates),
        )
        + "\n\n## Many at once\n\n"
        "Through the real collector into Prometheus and Jaeger. A trace is complete if Jaeger has the spans of the seed's stages and of "
        f"its whole life. {_measured(loads)}, by `{INTO}=benchmarks/results/load.csv make test-full ARGS=tests/stack/load`.\n\n"
        + table(("load", "measured"), ((row["what"], row["measured"]) for row in loads))
    )


def _events(rows: Iterable[dict[str, str]]) -> Iterable[Sequence[str]]:
    micros = {row["case"]: float(row["emit_us"]) for row in rows}
    for row in rows:
        ratios = (f"{micros[row['case']] / micros[name]:.1f}" for name in (CREATION, JSON))
        yield row["case"], row["emit_us"], f"{row['emit_us_low']} to {row['emit_us_high']}", *ratios


def _rates(rows: Iterable[dict[str, str]]) -> Iterable[Sequence[str]]:
    for row in rows:
        rate, low, high, processor, queued, lost, emitted = (
            f"{int(row[name]):,}"
            for name in (
                "per_second",
                "per_second_low",
                "per_second_high",
                "per_processor_second",
                "most_queued",
                "lost",
                "emitted",
            )
        )
        name, of_emitted = (BASELINE, "") if row["case"] == BASELINE else (f"by {row['case']}", f"{lost} of {emitted}")
        yield name, rate, f"{low} to {high}", processor, row["of_baseline"], queued, of_emitted


def _measured(rows: Iterable[dict[str, str]]) -> str:
    commits = sorted({f"commit {row['commit']} on {row['date']}" for row in rows})
    return f"Measured at {', '.join(commits) or 'no commit'}"


def _busy(rows: Iterable[dict[str, str]]) -> str:
    found = sorted({f"with a load of {row['load']} ({row['machine'].split('; ')[1]})" for row in rows})
    return " " + ", ".join(found) if found else ""
