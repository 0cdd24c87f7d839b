"""What the benchmark's results say of the queries, as they are committed."""

import csv

from scripts.stack_settings import ROOT


def test_every_query_that_was_measured_was_answered_within_a_second() -> None:
    with (ROOT / "benchmarks" / "results" / "boards.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 100
    assert {row["parameters"] for row in rows} == {"200"}
    assert {row["query"]: row["longest_ms"] for row in rows if float(row["longest_ms"]) > 1000} == {}
