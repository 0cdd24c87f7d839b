"""The page about sharpness says what the benchmark has measured, and where."""

import csv

from scripts.generate import ROOT

PAGE = (ROOT / "docs" / "explanation" / "sharpness.md").read_text()
ROWS = list(csv.DictReader((ROOT / "benchmarks" / "results" / "sharpness.csv").read_text().splitlines()))
WAYS = ("loop, drawn", "loop", "vectorised", "compiled")
CASES = dict.fromkeys((row["network"], row["batch"], row["samples"]) for row in ROWS)
BY_CASE = {(row["network"], row["batch"], row["samples"], row["way"]): row for row in ROWS}


def cell(row: dict[str, str]) -> str:
    return f"{row['ratio']} ({row['ratio_low']}-{row['ratio_high']})"


def line(case: tuple[str, str, str]) -> str:
    """Return a row of the page's table."""
    original = float(BY_CASE[*case, "original"]["milliseconds"])
    return " | ".join(["", *case, f"{original:.1f}", *(cell(BY_CASE[*case, way]) for way in WAYS), ""]).strip()


def test_the_table_is_the_result() -> None:
    assert len(CASES) == 12
    table = [each for each in PAGE.splitlines() if each.startswith(("| mlp", "| cnn", "| gpt"))]
    assert table == [line(case) for case in CASES]


def test_the_page_names_machine_and_commit() -> None:
    for name in ("machine", "torch", "commit"):
        (value,) = {row[name] for row in ROWS}
        assert f"`{value}`" in PAGE
    assert {row["rounds"] for row in ROWS} == {"60"}
    assert "60 rounds" in PAGE


def test_what_the_page_says_of_compiling_is_the_result() -> None:
    seconds = sorted(float(row["compile_seconds"]) for row in ROWS if row["compile_seconds"])
    assert f"{seconds[0]:.0f} to {seconds[-1]:.0f} s" in PAGE
    spared = []
    for case in CASES:
        best = min(float(BY_CASE[*case, way]["milliseconds"]) for way in ("loop", "vectorised"))
        row = BY_CASE[*case, "compiled"]
        spared.append(1000 * float(row["compile_seconds"]) / (best - float(row["milliseconds"])))
    assert all(each > 0 for each in spared)
    assert f"after {min(spared):.0f} measurements at the earliest" in PAGE


def test_ranges_in_the_page_are_those_of_the_result() -> None:
    for way in WAYS:
        ratios = sorted(float(row["ratio"]) for row in ROWS if row["way"] == way)
        assert f"{ratios[0]:.2f} to {ratios[-1]:.2f}" in PAGE, way
