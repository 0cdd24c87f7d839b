"""A device that hangs holds up the rows of its own environment, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa.kernels.transfer import Transfer
from tests.support import lines, spans, until

FOLDER = Path("nissa-runs/run")


class Device:
    """Stands for an accelerator: copies that begin while it hangs arrive when it goes on."""

    def __init__(self) -> None:
        self.hangs = False
        self.waiting: dict[int, Transfer] = {}

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.hangs = True
        yield
        self.hangs = False


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found, begin = Device(), Transfer.__init__

    def begun(transfer: Transfer, tensors: Any) -> None:
        begin(transfer, tensors)
        if found.hangs:
            found.waiting[id(transfer)] = transfer

    monkeypatch.setattr(Transfer, "__init__", begun)
    monkeypatch.setattr(Transfer, "ready", lambda transfer: id(transfer) not in found.waiting)
    return found


def trained(environment: nissa.Run) -> torch.optim.Optimizer:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    environment.watch(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return optimizer


def test_lifecycle_events_and_findings_leave_the_process_while_a_device_hangs(device: Device) -> None:
    files = {"export_interval_seconds": 0.1}
    with nissa.start("diagnostic", run_id="run", console__enabled=False, files=files) as run:
        stuck, other = run.environment("stuck"), run.environment("other")
        first, second = trained(stuck), trained(other)  # type: ignore[arg-type]  # environments watch as runs do
        with device.hanging():
            stuck.log_loss(1.0)
            first.step()
        seed = run.germinate("seed-1", blueprint="conv")
        seed.cull(reason="no improvement")
        other.log_loss(float("nan"))
        second.step()
        until(lambda: any(span.name == "seed" for span in spans(FOLDER)), "the seed's span")
        until(lambda: any("RED_FLAG_RAISED" in str(line) for line in lines(FOLDER / "logs.jsonl")), "the finding")

        found = stuck.validate(loss=1.0)
        assert found.train_loss is None
        assert found.incomplete == ("train_loss",)
        device.waiting.clear()
        assert run.flush(30)
        assert stuck.validate(loss=1.0).train_loss == 1.0


def test_the_end_of_a_run_does_not_wait_for_a_device_that_hangs_for_good(device: Device) -> None:
    with nissa.start("diagnostic", run_id="run", console__enabled=False, limits__exit_timeout_seconds=1.0) as run:
        optimizer = trained(run)
        with device.hanging():
            optimizer.step()
        run.germinate("seed-1", blueprint="conv")
    assert [span.attributes["nissa.seed.outcome"] for span in spans(FOLDER) if span.name == "seed"] == ["interrupted"]
