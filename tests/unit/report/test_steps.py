"""Step phases and values of ``backward()`` in the report."""

from pathlib import Path
from typing import Any

import pytest

from nissa.recordings import read
from nissa.report.run_summary import RunSummary
from nissa.report.steps import backward_values, step_phases
from tests import otlp

SECOND = 1_000_000_000
CUMULATIVE, DELTA = 2, 1


def histogram(phase: str, points: list[tuple[int, int, float]], temporality: int) -> dict[str, Any]:
    """Return a histogram; a point has its second, count and sum."""
    attributes = [{"key": "nissa.step.phase", "value": {"stringValue": phase}}]
    found = [
        {"timeUnixNano": str(at * SECOND), "count": str(count), "sum": total, "attributes": attributes}
        for at, count, total in points
    ]
    data = {"aggregationTemporality": temporality, "dataPoints": found}
    return {"name": "nissa.step.phase.duration", "unit": "s", "histogram": data}


def summary_of(folder: Path, *metrics: dict[str, Any]) -> RunSummary:
    return RunSummary(read(otlp.write(folder / "r", metrics=[otlp.metrics(*metrics)])), "r")


@pytest.mark.parametrize(
    ("temporality", "points"),
    [(CUMULATIVE, [(1, 2, 0.5), (2, 2, 0.5), (3, 6, 0.9)]), (DELTA, [(1, 2, 0.5), (2, 0, 0.0), (3, 4, 0.4)])],
    ids=["cumulative", "delta"],
)
def test_means_are_those_between_exports(
    tmp_path: Path, temporality: int, points: list[tuple[int, int, float]]
) -> None:
    run = summary_of(tmp_path, histogram("forward", points, temporality), histogram("data", [(1, 2, 0.1)], temporality))
    panel = step_phases(run)
    data, forward = panel.variants[0].figure.data
    assert (data.name, forward.name) == ("data", "forward")
    assert list(forward.y) == pytest.approx([250, 100])
    assert list(forward.x) == [1_000, 3_000]  # nothing was measured before the second export
    assert panel.table is not None
    assert [row.cells for row in panel.table.rows] == [("data", "50", "25.0%"), ("forward", "150", "75.0%")]


def test_a_run_without_phases_says_why(tmp_path: Path) -> None:
    run = summary_of(tmp_path, {"name": "nissa.loss", "gauge": {"dataPoints": [{"timeUnixNano": "1", "asDouble": 1}]}})
    assert "step_phases is off" in step_phases(run).empty
    assert backward_values(run) == []


def test_values_of_unknown_scale_have_a_panel(tmp_path: Path) -> None:
    points = [{"timeUnixNano": str(at * SECOND), "asDouble": at / 2} for at in (1, 2)]
    (panel,) = backward_values(summary_of(tmp_path, {"name": "nissa.backward.value", "gauge": {"dataPoints": points}}))
    assert list(panel.variants[0].figure.data[0].y) == [0.5, 1.0]
