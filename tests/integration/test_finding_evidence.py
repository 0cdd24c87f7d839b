"""What a finding rests on reaches every place where the finding is read."""

from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa.recordings.values import attributes
from nissa.report.writer import write_report
from tests.integration.conftest import Toy
from tests.support import points, records, spans

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def spoil(toy: Toy) -> None:
    """Make the gradient of the last layer NaN before the step."""
    loss = toy.model(torch.randn(16, 8)).square().mean()
    toy.optimizer.zero_grad()
    torch.autograd.backward(loss)
    gradient = dict(toy.model.named_parameters())["2.weight"].grad
    assert gradient is not None
    gradient.fill_(float("nan"))
    toy.optimizer.step()


def trained(toy: Toy, folder: Path) -> tuple[Path, Any]:
    with nissa.start("standard", gradients__every_n_steps=1, files__directory=folder, run_id="r") as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            for _ in range(3):
                toy.step(run)
            spoil(toy)
            run.validate(loss=1.0)
        brief = run.brief(action="wait")
        assert run.flush(30)
    return folder / "r", brief


def test_layers_numbers_first_step_and_advice_are_in_logs_traces_report_console_and_brief(
    toy: Toy, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, brief = trained(toy, folder)
    (record,) = [
        attributes(each)
        for each in records(where)
        if each["eventName"] == "nissa.event.red_flag_raised"
        and attributes(each)["nissa.red_flag.name"] == "nonfinite_gradients"
    ]
    expected = {
        "nissa.finding.evidence": ["Non-finite gradients in 1 layer"],
        "nissa.finding.layers": ["2.weight"],
        "nissa.finding.layer_count": 1,
        "nissa.finding.value": 1,
        "nissa.finding.certainty": "certain",
        "nissa.finding.first_step": 3,
    }
    assert {key: record.get(key) for key in expected} == expected
    assert record["nissa.finding.advice"].startswith("Skip such steps")
    (span,) = [
        each
        for each in spans(where)
        if each.name == "red_flag" and each.attributes["nissa.red_flag.name"] == "nonfinite_gradients"
    ]
    assert {key: span.attributes.get(key) for key in expected} == expected
    assert not [each for each in points(where) if any(key.startswith("nissa.finding.") for key in each.attributes)]
    shown = capsys.readouterr().err
    assert "[layers: 2.weight; since step 3]" in shown
    (finding,) = [each for each in brief.findings if each.name == "nonfinite_gradients"]
    assert (finding.layers, finding.value, finding.step, finding.first_step) == (("2.weight",), 1.0, 3, 3)
    write_report(where)
    page = unescape((where / "report.html").read_text())
    assert "<strong>Layers</strong> <code>2.weight</code>" in page
    assert "<strong>What to try</strong> Skip such steps" in page
    assert "value 1; since step 3" in page
