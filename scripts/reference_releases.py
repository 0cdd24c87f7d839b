"""Reference page of releases: the oldest and the newest ones that tests have run with."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.facts import read
from tests.compat.releases import INTO, PACKAGES

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

_NOT_MEASURED = "not measured yet"


def releases(table: Table, results: Path) -> str:
    """Return the page.

    Args:
        table: Returns a table, given a header and rows.
        results: ``releases.csv``.
    """
    rows = {row["which"]: row for row in read(results)}
    measured = sorted({f"commit {row['commit']} on {row['date']}" for row in rows.values()})
    counts = sorted({row["tests"] for row in rows.values()})
    return (
        "# Releases\n\n"
        "Nissa is tested with the oldest releases that it accepts and with the newest ones, each in an environment of its own where only "
        "Nissa and the tools of these tests are installed: trainings that write files and that export over HTTP and gRPC, and a core of "
        f"{' and '.join(counts) or 'the'} tests of whole runs and of every private name that Nissa uses. Tested at "
        f"{', '.join(measured) or 'no commit'}, by `{INTO}=benchmarks/results/releases.csv make test-full "
        "ARGS=tests/compat/test_releases.py`.\n\n"
        + table(
            ("package", "oldest", "newest"), ((_code(name), *_versions(rows, name)) for name in ("python", *PACKAGES))
        )
        + "\n\nPython 3.11 is the oldest release of Python that Nissa accepts. OpenTelemetry 1.44 is not accepted: when its HTTP exporter "
        "tries again, it changes the random numbers of the script.\n"
    )


def _versions(rows: dict[str, dict[str, str]], name: str) -> list[str]:
    return [rows[which][name] if which in rows else _NOT_MEASURED for which in ("oldest", "newest")]


def _code(name: str) -> str:
    return f"`{name}`"
