"""Rows of the benchmark of kernels, and the page that shows them."""

import csv
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import RESULTS, Case, Row
from nissa.kernels.reference import measure
from scripts import reference_kernels
from scripts.generate import _table

FEW = Case(2, 100, torch.float32)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_cpu_is_measured_with_one_thread_and_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CPU", (FEW,))
    found = [(row.threads, row.statistics, row.kernel) for row in kernels.rows(["cpu"])]
    each = [(layout, kernel) for layout in ("buckets", "moments") for kernel in ("compiled", "reference")]
    assert found == [(threads, *rest) for threads in "12" for rest in each]


def test_a_ratio_lies_in_its_interval() -> None:
    row = kernels.compare("cpu", "reference", measure, FEW, "moments", 5)
    assert float(row.ratio_low) <= float(row.ratio) <= float(row.ratio_high)
    assert (row.tensors, row.elements, row.dtype, row.rounds) == (2, 100, "float32", 5)


def test_results_have_the_columns_of_a_row() -> None:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == [field.name for field in fields(Row)]


def test_the_page_says_with_how_many_threads(tmp_path: Path) -> None:
    row = asdict(kernels.compare("cpu", "reference", measure, FEW, "moments", 5))
    with (tmp_path / "kernels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row, {**row, "device": "cuda", "threads": ""}])
    page = reference_kernels.kernels(_table, tmp_path / "kernels.csv")
    table = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("|")]
    told = [line[table[0].index("threads")] for line in table if "2 of 100 float32" in line]
    assert told == [str(torch.get_num_threads()), "-"]
