"""Every training example, both without code and with its one line: the same steps, gradients, epochs and ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, only_run, points, spans

BIN = Path(sys.executable).parent
EPOCHS = 2
PHASE = "nissa.step.phase.duration"
STEPS = {"plain": 16, "lightning": 8, "transformers": 8, "accelerate": 8, "ddp": 8, "fsdp2": 8}
"""Steps of an optimizer in two epochs of 256 samples: batches of 32, most of them accumulated in pairs."""
RANKS = {"ddp": 29790, "fsdp2": 29794}
"""Examples that run on two ranks, and the port on which these meet."""
KNOWN = {"plain", "ddp", "fsdp2"}
"""Examples whose loss is not divided before `backward()`, so that it is known without code."""


def run(example: str, folder: Path, *, nissa: bool) -> Path:
    port = str(RANKS.get(example, 0) + nissa)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    script = [str(ROOT / "examples" / f"train_{example}.py"), "--epochs", str(EPOCHS)]
    command = [sys.executable] if nissa else [str(BIN / "nissa"), "run"]
    settings = {"NISSA_PROFILE": "diagnostic", "NISSA_OVERHEAD_BUDGET": "1.0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *(launcher if example in RANKS else []), *script, *(["--nissa"] if nissa else [])],
        cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("not observed" in done.stderr) is not nissa
    return only_run(folder)


def stream(run: Path, metric: str, rank: str = "", **attributes: str) -> list[float]:
    found = [
        point for point in points(run, metric, f"metrics{rank}.jsonl") if attributes.items() <= point.attributes.items()
    ]
    return [point.value for point in sorted(found, key=lambda point: point.time)]


@pytest.mark.parametrize(
    "example", [each if each == "lightning" else pytest.param(each, marks=pytest.mark.full) for each in STEPS]
)
def test_an_example_has_the_same_telemetry_with_and_without_its_line(example: str, tmp_path: Path) -> None:
    runs = []
    for nissa in (False, True):
        (tmp_path / str(nissa)).mkdir()
        runs.append(run(example, tmp_path / str(nissa), nissa=nissa))
    rank = "-rank0" if example in RANKS else ""
    prefix = "network." if example in {"lightning", "transformers"} else ""
    of_layer = {"nissa.parameter.name": f"{prefix}0.weight"}
    without, explicit = [stream(each, "nissa.gradient.norm", rank, **of_layer) for each in runs]
    assert len(without) == STEPS[example]
    assert without == pytest.approx(explicit, rel=1e-6)
    train = {"nissa.phase": "train"}
    losses = [stream(each, "nissa.loss", rank, **train) for each in runs]
    assert len(losses[1]) == STEPS[example]
    assert losses[0] == (pytest.approx(losses[1]) if example in KNOWN else [])
    for each in runs:
        phases = {point.attributes["nissa.step.phase"] for point in points(each, PHASE, f"metrics{rank}.jsonl")}
        assert phases == {"data", "forward", "backward", "optimizer"}
        found = [span for span in spans(each, f"traces{rank}.jsonl") if span.name == "epoch"]
        assert [span.attributes["nissa.epoch"] for span in found] == list(range(EPOCHS))
    if example in RANKS:
        assert len(stream(runs[0], "nissa.step", "-rank1")) == STEPS[example]
    else:
        assert len(stream(runs[1], "nissa.loss", **{"nissa.phase": "validation"})) == EPOCHS
