"""Every declared thing is alive."""

import ast
import subprocess
import sys
from pathlib import Path
from time import time_ns
from types import ModuleType
from typing import Any

import pytest
import torch

import nissa
from nissa import GateResult
from nissa.hub.hub import NissaHub
from nissa.hub.measurements import ReplicasCompared
from nissa.run.memory_usage import DeviceMemory
from nissa.run.observation import log_backward_value
from nissa.semconv import attributes, metrics
from nissa.semconv import spans as span_names
from nissa.semconv.metrics import Kind
from tests.support import ROOT, points, records, spans
from tests.toys import Toy

_KINDS = {
    Kind.GAUGE: "gauge",
    Kind.COUNTER: "sum",
    Kind.UP_DOWN_COUNTER: "sum",
    Kind.HISTOGRAM: "histogram",
    Kind.EXPONENTIAL_HISTOGRAM: "exponentialHistogram",
}


def documented(module: ModuleType) -> list[tuple[str, Any, str]]:
    """Return name, value and documentation of the constants of a module."""
    from scripts import generate  # noqa: PLC0415 - it imports SciPy, which every worker would do to collect this file

    return [*generate._documented(module)]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run in which everything happens that can."""
    monkeypatch.setenv("TRACEPARENT", f"00-{'1' * 32}-{'2' * 16}-01")
    device = DeviceMemory("cuda:0", "a device", allocated=1, peak=2, reserved=3, total=4)
    monkeypatch.setattr("nissa.run.backends.device_memory", lambda: iter([device]))  # on machines without one
    toy = Toy()
    toy.optimizer = torch.optim.SGD([{"params": [each]} for each in toy.model.parameters()], lr=0.01)
    with nissa.start("research", run_id="r", strict=False, console__enabled=False, run_config={"lr": 0.01}) as run:
        env = run.environment(0)
        scaler = torch.amp.GradScaler("cpu")
        env.watch(toy.model, toy.optimizer, name="toy", scaler=scaler)
        kept = env.germinate("kept", blueprint="norm", slot="r0c0", module=toy.model[2])
        scaler.scale(toy.model(torch.ones(1, 8)).sum() * torch.inf).backward()
        scaler.step(toy.optimizer)
        for number in range(3):
            with env.epoch(number):
                for _ in range(3):
                    toy.step(env)
                    env.clip_grad_norm_(toy.model.parameters(), 1.0)
                    env.log(kl=0.1)
                    log_backward_value(env, torch.ones(()), model="toy")
                    env.log_items(samples=16)
                env.validate(
                    loss=1.0,
                    accuracy=0.5,
                    train_accuracy=0.6,
                    per_class_accuracy={"a": 0.1, "b": 0.9},
                    closure=lambda: toy.model(torch.ones(4, 8)).square().mean(),
                )
                with env.checkpoint("model.pt"):
                    pass
        nissa.get_hub().record(
            ReplicasCompared(
                env_id="0",
                model_name="toy",
                step=0,
                time_unix_nano=time_ns(),
                ranks=(0, 1),
                outcome="equal",
                leads=True,
                skew=0.1,
            )
        )  # as on several ranks
        kept.advance("blending")
        kept.gate(GateResult("G2", passed=False, score=0.1, checks_failed=("gain_0.10%",)))
        kept.advance("training")
        kept.isolation_violation()
        kept.advance("blending", alpha=0.5)
        kept.fossilize(improvement=0.01)
        nissa.get_hub().emit({"event_type": "ANYTHING", "data": {"detail": 1}})
        nissa.get_hub().emit("no event")
    return Path("nissa-runs/r")


def test_every_metric_is_emitted_as_it_is_declared(folder: Path) -> None:
    found = {point.metric: point for point in points(folder)}
    unsampled = metrics.SEED_UNSAMPLED.name  # needs a sampler that drops: shown with the seeds' spans
    assert set(found) == {spec.name for spec in metrics.ALL} - {unsampled}
    for spec in metrics.ALL:
        if spec.name != unsampled:
            assert (found[spec.name].kind, found[spec.name].unit) == (_KINDS[spec.kind], spec.unit)


def test_no_metric_carries_an_attribute_that_it_does_not_declare(folder: Path) -> None:
    for point in points(folder):
        declared = {*metrics.BY_NAME[point.metric].attributes, *metrics.EVERY_STREAM}
        assert set(point.attributes) <= declared, point.metric


def test_every_declared_attribute_of_a_metric_is_used(folder: Path) -> None:
    used: dict[str, set[str]] = {}
    for point in points(folder):
        used.setdefault(point.metric, set()).update(point.attributes)
    for name, keys in used.items():
        assert set(metrics.BY_NAME[name].attributes) <= keys, name


def test_every_span_and_event_name_is_used(folder: Path) -> None:
    names = {span.name for span in spans(folder)}
    of_epochs = {span_names.EPOCH, span_names.VALIDATION, span_names.STEP, span_names.CHECKPOINT, span_names.RED_FLAG}
    assert of_epochs | {span_names.RUN, span_names.SEED, span_names.GATE} <= names
    assert {name + span_names.STARTED_SUFFIX for name in (span_names.SEED, span_names.EPOCH)} <= names
    told = {record.get("eventName") for record in records(folder)}
    told |= {name for span in spans(folder) for name, _, _ in span.events}
    declared = {value for name, value in vars(span_names).items() if name.startswith("EVENT_")}
    assert declared - {span_names.EVENT_PREFIX} <= told
    assert span_names.EVENT_PREFIX + "anything" in told


def test_no_other_module_spells_a_telemetry_name() -> None:
    source = Path(nissa.__file__).parent
    names = {spec.name for spec in metrics.ALL} | {value for _, value, _ in documented(attributes)}
    for path in source.rglob("*.py"):
        if path.parent.name == "semconv":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, f"{path.relative_to(source)}:{node.lineno} spells {node.value!r}"


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_attribute_is_documented() -> None:
    assert {name for name, _, _ in documented(attributes)} == {name for name in vars(attributes) if name.isupper()}


def test_the_hub_can_be_had_alone() -> None:
    hub = NissaHub()
    assert hub.close()
