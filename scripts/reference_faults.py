"""Reference page of faults: what survives each, as the tests with real servers have measured it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.facts import read
from tests.stack.faults.table import INTO, PROMISES, Fault
from tests.stack.faults.trainee import APPLICATION, DOORS

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

_APPLICATION_TEST = "tests/unit/otel/test_providers.py::test_providers_that_the_application_has_set_are_kept"
_EXPORTER = "as your exporter does"
_NOT_MEASURED = "not measured yet"


def faults(table: Table, results: Path) -> str:
    """Return the page."""
    rows = {(row["fault"], row["door"]): row for row in read(results)}
    commits = sorted({f"commit {row['commit']} on {row['date']}" for row in rows.values()})
    return (
        "# Faults\n\n"
        "What survives a fault of the collector, of the disk or of the process. A training grows a seed per pass over its data and "
        "notes it. Afterwards Jaeger has the span of every life that it noted (a fact), at least once and under its ids; the "
        "counters of stage changes in Prometheus equal the notes; and the series of step numbers has no hole. Entry points are "
        "`nissa.start()`, `nissa run` and `opentelemetry-instrument`; where an application has set up its own OpenTelemetry "
        "providers, its exporters decide. After a sudden end (SIGKILL, `os._exit()`, a rank that dies) only lives older than a second "
        "and steps older than six are demanded, and a counter may have any value from those lives to all that were noted.\n\n"
        f"Collector, Prometheus and Jaeger are the real ones. Measured at {', '.join(commits) or 'no commit'}, by "
        f"`{INTO}=benchmarks/results/faults.csv make test-full ARGS=tests/stack/faults`.\n\n"
        + table(("fault", "entry point", "promise", "measured", "test"), _rows(rows))
    )


def _rows(rows: dict[tuple[str, str], dict[str, str]]) -> Iterable[Sequence[str]]:
    for fault in Fault:
        for door in DOORS:
            row = rows.get((fault, door), {"measured": _NOT_MEASURED, "test": ""})
            test = row["test"].rpartition("::")[2]
            yield fault, f"`{door}`", PROMISES[fault], row["measured"], f"`{test}`" if test else _NOT_MEASURED
    yield "any", APPLICATION, _EXPORTER, _EXPORTER, f"`{_APPLICATION_TEST.rpartition('::')[2]}`"
