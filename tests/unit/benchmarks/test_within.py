"""What a run takes by a clock around our code, and by its own account."""

from pathlib import Path

import pytest
import torch

from benchmarks.steps import within
from benchmarks.steps.within import exported_ratios, row, watched


def window(**changed: float) -> dict[str, float]:
    return {"seconds": 10.0, "inside": 0.2, "threads": 0.3, "told": 0.05} | changed


def test_time_in_our_code_is_held_against_the_time_outside_of_it() -> None:
    found = row([window(), window()])
    assert float(found["own"]) == pytest.approx(0.5 / 9.8, abs=1e-6)
    assert float(found["told"]) == pytest.approx(0.05)
    assert float(found["factor"]) == pytest.approx(1.0)
    assert found["windows"] == 2


def test_windows_that_differ_widen_the_interval() -> None:
    found = row([window(), window(threads=0.5)])
    assert float(found["own_low"]) < 0.5 / 9.8 < float(found["own_high"])


def test_points_of_a_run_are_found_in_its_files(tmp_path: Path) -> None:
    points = ",".join(f'{{"timeUnixNano":"{at}","asDouble":{at / 100}}}' for at in (20, 10))
    metric = f'{{"name":"nissa.overhead.ratio","gauge":{{"dataPoints":[{points}]}}}}'
    line = f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}\n'
    (tmp_path / "metrics.jsonl").write_text(line, encoding="utf-8")
    assert exported_ratios(tmp_path) == [(10, 0.1), (20, 0.2)]


def test_a_run_is_cut_into_windows_and_tells_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within, "WINDOW", 1.0)
    found = watched(
        "tiny", "diagnostic", {"threads": torch.get_num_threads(), "device": "cpu", "batches": 1}, windows=2
    )
    assert len(found) == 2
    for each in found:
        assert 1.0 <= each["seconds"] < 10.0
        assert 0.0 < each["inside"] < each["seconds"]
        assert each["threads"] > 0.0
        assert each["told"] > 0.0
