"""The tables about cost."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from scripts.cost import PLOTS, REGIONS, digest, number, page, percent, stale_plots


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"{'|'.join(line)}\n" for line in [head, *rows])


def put(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def step(way: str, ratio: float) -> dict[str, object]:
    return {
        **dict.fromkeys(("model", "machine", "torch", "commit", "date"), "x"),
        "way": way,
        "version": "",
        "pairs": 9,
        "bare_ms": 300.0,
        **{f"ratio{end}": ratio for end in ("", "_low", "_high")},
        **dict.fromkeys(("sample_ms", "sample_low", "sample_high"), 1.5),
        "reads": 0,
        "operations": 7,
        "peak_mib": "",
        "bytes": 12_345,
    }


def within(way: str, own: float) -> dict[str, object]:
    return {
        **dict.fromkeys(("model", "machine", "torch", "commit", "date"), "x"),
        "way": way,
        **{f"{name}{end}": own for name in ("own", "told", "factor") for end in ("", "_low", "_high")},
    }


def test_only_regions_are_written(tmp_path: Path) -> None:
    text = "before\n<!-- generated: steps -->\nold\n<!-- end -->\nafter\n<!-- generated: live -->\n<!-- end -->\n"
    found = page(text, table, tmp_path)
    assert found.startswith("before\n<!-- generated: steps -->\n")
    assert "old" not in found
    assert found.count("Not measured yet") == 2
    assert "\nafter\n" in found
    assert page(found, table, tmp_path) == found


def test_every_table_says_when_nothing_was_measured(tmp_path: Path) -> None:
    for region in REGIONS.values():
        assert "Not measured yet" in region(table, tmp_path)


def test_what_was_measured_stands_in_the_tables(tmp_path: Path) -> None:
    put(tmp_path / "steps.csv", [step("bare", 0.0), step("standard", 0.004), step("minimal", 0.05)])
    put(tmp_path / "within.csv", [within("standard", 0.003)])
    steps = REGIONS["steps"](table, tmp_path)
    assert "standard|0.40 % (0.40 % to 0.40 %)|0.30 % (0.30 % to 0.30 %)|1.50 (1.50 to 1.50)|0|7||12,345|9" in steps
    assert "bare|0.00 % (0.00 % to 0.00 %)||" in steps
    goals = REGIONS["goals"](table, tmp_path).splitlines()
    assert any(each.startswith("`standard`|") and "**met, 2.50 times better**" in each for each in goals)
    assert any(each.startswith("`minimal`|") and "**missed by a factor of 25.0**" in each for each in goals)


def test_the_summary_begins_with_the_answer(tmp_path: Path) -> None:
    shares = {"minimal": 0.001, "standard": 0.0046, "diagnostic": 0.04, "research": 0.08}
    put(tmp_path / "within.csv", [within(way, share) for way, share in shares.items()])
    first, *_, last = REGIONS["summary"](table, tmp_path).splitlines()
    assert first.startswith("**`standard` adds about 0.5 % to a step of 0.4 s.**")
    assert last == "`research`|in every step, and copies the weights|8.00 %"


def test_the_summary_has_what_profiles_add_to_short_steps(tmp_path: Path) -> None:
    put(tmp_path / "within.csv", [within(way, 0.001) for way in ("minimal", "standard", "diagnostic", "research")])
    short = {"minimal": 93.4, "standard": 200, "bare": 1, "diagnostic": 812}
    put(
        tmp_path / "short.csv",
        [{"model": "mlp", "way": way, "bare_us": 131.2, "added": each} for way, each in short.items()],
    )
    lines = REGIONS["summary"](table, tmp_path).splitlines()
    assert "profile|reads gradients|x|`mlp`, 131 µs a step" in lines
    assert lines[-4:] == [
        "`minimal`|never|0.10 %|93.4 µs",
        "`standard`|in every 10th step|0.10 %|200 µs",
        "`diagnostic`|in every step|0.10 %|812 µs",
        "`research`|in every step, and copies the weights|0.10 %|",
    ]


def test_a_profile_without_a_result_leaves_the_summary_unwritten(tmp_path: Path) -> None:
    put(tmp_path / "within.csv", [within("standard", 0.003)])
    assert "Not measured yet" in REGIONS["summary"](table, tmp_path)


def test_what_time_leaves_open_is_told_from_within_and_by_counts(tmp_path: Path) -> None:
    wide = step("standard", 0.004) | {"ratio_low": -0.1, "ratio_high": 0.1}
    put(tmp_path / "steps.csv", [step("minimal", 0.001), wide])
    put(tmp_path / "within.csv", [within("minimal", 0.5), within("standard", 0.003)])
    _, closed, opened, *_ = REGIONS["goals"](table, tmp_path).splitlines()
    assert closed.endswith("|**met, 2.00 times better**|")
    verdict, beside = opened.split("|")[-2:]
    assert verdict.startswith("**not shown")
    assert beside == "met, 3.33 times better (0.30 % to 0.30 %); 0 reads, 7 operations"


def test_results_of_a_gpu_have_goals_of_their_own(tmp_path: Path) -> None:
    put(tmp_path / "steps.csv", [step("diagnostic", 0.04)])
    assert "`diagnostic`|below 3.00 %|**not measured**" in REGIONS["gpu"](table, tmp_path)
    (tmp_path / "cuda").mkdir()
    put(tmp_path / "cuda" / "steps.csv", [step("diagnostic", 0.04)])
    (goal,) = (each for each in REGIONS["gpu"](table, tmp_path).splitlines() if each.startswith("`diagnostic`"))
    assert "**missed by a factor of 1.33**" in goal
    assert "**met, 1.25 times better**" in REGIONS["goals"](table, tmp_path)


def test_a_plot_of_other_results_is_noticed(tmp_path: Path) -> None:
    put(tmp_path / "steps.csv", [{"a": 1}])
    (name,) = (name for name, drawn in PLOTS.items() if drawn == ("steps.csv",))
    assert stale_plots(tmp_path, tmp_path) == [tmp_path / name]
    (tmp_path / name).write_text(f"<svg>drawn from {digest(PLOTS[name], tmp_path)}</svg>", encoding="utf-8")
    assert stale_plots(tmp_path, tmp_path) == []
    put(tmp_path / "steps.csv", [{"a": 2}])
    assert stale_plots(tmp_path, tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1234.5, "1,234"), (12.34, "12.3"), (0.00001, "0.000"), (float("inf"), "∞"), (-2.0, "-2.00")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_are_percent() -> None:
    assert (percent(0.1234), percent(0.00123), percent(float("-inf"))) == ("12.3 %", "0.12 %", "-∞")
