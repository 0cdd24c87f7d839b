"""Scripts without a line of Nissa: what they print themselves is what Prometheus and Jaeger have after ``nissa run``."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest

from nissa.recordings.values import attributes
from nissa.semconv import attributes as attr
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.stack.queries import Past, fetch, parent, settled, tags
from tests.stack.training import TRANSPORTS, environment, service_name
from tests.support import until

SCRIPTS = Path(__file__).parent / "unmodified"
BIN = Path(sys.executable).parent
PRECISION = 1e-4
"""Of what the scripts print."""


@dataclass(frozen=True)
class Ran:
    """A script that has run, and the servers.

    Args:
        launcher: Trace that it was started in.
    """

    stack: Stack
    service: str
    launcher: str
    status: int
    out: str
    err: str
    past: Past

    def printed(self, name: str) -> list[float]:
        """Return the numbers that the script printed after a word."""
        return [float(number) for number in re.findall(rf"\b{name} (-?[\d.]+)", self.out)]

    def points(self, series: str) -> list[float]:
        """Return the values of one gauge, in the order of their time."""
        found = self.past.samples(f"{self._selector(series)}[1h]")
        assert len(found) <= 1, found
        return [float(value) for each in found for _, value in each["values"]]

    def arrives(self, series: str, expected: list[float]) -> None:
        """Check the values of one gauge."""
        found = settled(lambda: len(self.points(series)), len(expected))
        assert self.points(series) == pytest.approx(expected, rel=PRECISION, abs=1e-5), (series, found)

    def labels(self, series: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {each["metric"].get(label, "") for each in self.past.samples(self._selector(series))}

    def value(self, series: str) -> float | None:
        return self.past.value(f"sum(last_over_time({self._selector(series)}[1h]))")

    def _selector(self, series: str) -> str:
        name, _, given = series.partition("{")
        return f'{name}{{job="{self.service}"{", " if given else "}"}{given}'

    def spans(self) -> list[Any]:
        """Return the finished spans of the service, in the order of their beginning."""
        traces = fetch(f"{self.stack.jaeger}/api/traces", service=self.service, limit=1000)["data"] or []
        found = [span for each in traces for span in each["spans"] if attr.SPAN_PENDING not in tags(span)]
        return sorted(found, key=lambda span: span["startTime"])

    def named(self, name: str, count: int) -> list[Any]:
        """Return the spans of a name, once there are so many."""

        def look() -> list[Any] | None:
            found = [span for span in self.spans() if span["operationName"] == name]
            return found if len(found) >= count else None

        found = until(look, f"{count} spans {name}")
        assert len(found) == count
        return found

    def logged(self) -> list[tuple[str, str, str]]:
        """Return message, trace and span of the log records that are no Events."""
        lines = (self.stack.folder / "collector" / "logs.jsonl").read_text().splitlines()
        return [
            (record["body"]["stringValue"], record["traceId"], record["spanId"])
            for line in lines
            if self.service in line
            for resource in json.loads(line)["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
            if not record.get("eventName") and attributes(resource["resource"])["service.name"] == self.service
        ]

    def phases(self) -> set[str]:
        """Return the phases of a step that were measured."""
        until(lambda: self.labels("nissa_step_phase_duration_seconds_count", "nissa_step_phase"), "phases")
        return self.labels("nissa_step_phase_duration_seconds_count", "nissa_step_phase")


def ran(stack: Stack, folder: Path, *command: str, status: int = 0, **environ: str) -> Ran:
    """Run a script of the folder, in an interpreter of its own."""
    service, launcher = service_name("zero-code"), os.urandom(16).hex()
    own = {"NISSA_PROFILE": "diagnostic", "NISSA_OVERHEAD_BUDGET": "1.0", "TRACEPARENT": f"00-{launcher}-{'2' * 16}-01"}
    given = environment(stack, TRANSPORTS[0], service) | own | environ
    del given["NISSA_RUN_ID"]
    arguments = [str(SCRIPTS / each) if each.endswith((".py", ".ipynb")) else each for each in command]
    done = subprocess.run(
        [str(BIN / "nissa"), "run", *arguments],
        cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return Ran(stack, service, launcher, done.returncode, done.stdout, done.stderr, Past(stack, time() + 1))


def test_an_image_classifier_with_epochs_and_evaluations(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "image_classifier.py", "--epochs", "2", NISSA_LOGS__CAPTURE="true")
    losses, norms = run.printed("loss"), run.printed("norm")
    assert len(losses) == 8
    run.arrives('nissa_loss{nissa_phase="train"}', losses)
    run.arrives('nissa_gradient_norm{nissa_parameter_name="fc1.weight"}', norms)
    assert run.value('nissa_items_total{nissa_item_kind="samples"}') == 2 * 56
    assert run.phases() == {"data", "forward", "backward", "optimizer"}
    epochs = run.named(names.EPOCH, 2)
    assert [tags(span)[attr.EPOCH] for span in epochs] == [0, 1]
    assert [parent(span) for span in run.named(names.VALIDATION, 2)] == [span["spanID"] for span in epochs]
    (of_the_run,) = run.named(names.RUN, 1)
    assert of_the_run["traceID"] == run.launcher
    assert "not observed: validation loss and accuracy" in run.err
    assert "INFO:classifier:epoch 2 is trained" in run.err
    if not stack.docker:  # the lines are in a volume of the container
        until(lambda: len(run.logged()) >= len(epochs), "log records")
        assert run.logged() == [
            (f"epoch {n} is trained", span["traceID"], span["spanID"]) for n, span in enumerate(epochs, 1)
        ]


def test_a_language_model_with_accumulation_and_a_scaler_and_no_epochs(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "language_model.py")
    run.arrives("nissa_backward_value", run.printed("loss"))
    run.arrives('nissa_gradient_norm{nissa_parameter_name="lm_head.weight"}', run.printed("norm"))
    assert run.points("nissa_step") == list(range(6))
    assert run.points("nissa_loss") == []
    assert run.phases() == {"forward", "backward", "optimizer"}
    run.named(names.RUN, 1)
    assert not [span for span in run.spans() if span["operationName"] == names.EPOCH]
    assert "the scale of the training loss" in run.err


@pytest.mark.full
def test_a_gan_has_two_models(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "gan.py")
    assert len(run.printed("errG")) == 8
    run.arrives('nissa_loss{nissa_model_name="Generator"}', run.printed("errG"))
    run.arrives('nissa_backward_value{nissa_model_name="Discriminator"}', run.printed("errD"))
    assert run.labels("nissa_gradient_norm", "nissa_model_name") == {"Generator", "Discriminator"}
    assert [tags(span)[attr.EPOCH] for span in run.named(names.EPOCH, 2)] == [0, 1]


@pytest.mark.full
def test_a_policy_gradient(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "policy_gradient.py")
    assert len(run.printed("loss")) == 5
    run.arrives("nissa_loss", run.printed("loss"))
    assert run.labels("nissa_gradient_norm", "nissa_parameter_name") == {
        f"affine{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")
    }


@pytest.mark.full
def test_a_wgan_with_gradient_penalty(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "wgan_gp.py")
    run.arrives('nissa_loss{nissa_model_name="Critic"}', run.printed("lossD"))
    run.arrives('nissa_loss{nissa_model_name="Generator"}', run.printed("lossG"))


@pytest.mark.full
def test_ranks_of_torchrun(stack: Stack, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29817")
    run = ran(stack, tmp_path, *launcher, "ddp.py")
    for rank in ("0", "1"):
        mine = re.findall(rf"\[rank {rank}\] loss ([\d.]+)", run.out)
        run.arrives(f'nissa_loss{{dl_rank="{rank}"}}', [float(loss) for loss in mine])
    assert run.labels("nissa_step", "dl_rank") == {"0", "1"}
    assert len(run.labels("nissa_step", "nissa_run_id")) == 1
    # The gradients are reduced and equal on all ranks, so that one rank exports them.
    norms = [float(norm) for norm in re.findall(r"\[rank 0\] loss [\d.]+ norm ([\d.]+)", run.out)]
    run.arrives('nissa_gradient_norm{nissa_parameter_name="0.weight"}', norms)
    assert len(run.named(names.EPOCH, 4)) == 4  # two of each rank


@pytest.mark.full
def test_a_notebook(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "kernel.py", "notebook.ipynb")
    assert len(run.printed("loss")) == 12
    assert "ZeroDivisionError" in run.out
    run.arrives("nissa_loss", run.printed("loss"))
    assert [tags(span)[attr.EPOCH] for span in run.named(names.EPOCH, 3)] == [0, 1, 2]


@pytest.mark.full
def test_a_compiled_model(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "compiled.py")
    run.arrives("nissa_loss", run.printed("loss"))
    run.arrives('nissa_gradient_norm{nissa_parameter_name="0.weight"}', run.printed("norm"))
    assert run.phases() == {"data", "forward", "backward", "optimizer"}


@pytest.mark.full
def test_a_forked_process_is_a_run_of_its_own(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "forking.py")
    assert Counter(run.out.split()) == Counter(["warm-up", "done", "child", "done", "parent", "done"])
    until(lambda: len(run.labels("nissa_step", "nissa_run_id")) == 2, "both runs")
    of_runs = run.past.samples(f'max by (nissa_run_id) (nissa_step{{job="{run.service}"}})')
    assert sorted(float(each["value"][1]) for each in of_runs) == [4, 4]  # 5 steps of the child, 2 + 3 of the parent


@pytest.mark.full
def test_a_script_that_raises_ends_as_without_us(stack: Stack, tmp_path: Path) -> None:
    plain = subprocess.run(
        [sys.executable, SCRIPTS / "raising.py"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    run = ran(stack, tmp_path, "raising.py", status=plain.returncode)
    assert run.status == 1
    assert plain.stderr in run.err  # the same traceback; Nissa's lines follow it
    assert run.out == plain.stdout
    run.arrives("nissa_loss", run.printed("loss"))
    (epoch,) = run.named(names.EPOCH, 1)
    assert tags(epoch).get("error") is True


@pytest.mark.full
def test_a_script_that_ends_early_keeps_its_status(stack: Stack, tmp_path: Path) -> None:
    run = ran(stack, tmp_path, "ending_early.py", status=3)
    assert len(run.printed("loss")) == 8 + 3
    run.arrives("nissa_loss", run.printed("loss"))
    run.named(names.EPOCH, 2)
