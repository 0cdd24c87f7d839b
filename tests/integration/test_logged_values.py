"""Values that a training loop logs by itself: exported with the step, as they were at the call."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nissa
from nissa import InvalidValueError
from nissa.report import write_report
from tests.cases import for_each
from tests.integration.conftest import Toy
from tests.support import points, records, spans

pytestmark = pytest.mark.usefixtures("patient")

FOLDER = Path("nissa-runs") / "run"


class OnDevice(torch.Tensor):
    """Stands for a tensor that cannot be read on the host at the call."""


def on_device(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(value, dtype=dtype).as_subclass(OnDevice)


def scalars(name: str) -> list[float]:
    found = points(FOLDER, "nissa.scalar")
    return [point.value for point in found if point.attributes["nissa.scalar.name"] == name]


def items() -> dict[str, int]:
    found = {}
    for point in points(FOLDER, "nissa.items"):
        found[point.attributes["nissa.item.kind"]] = point.value
    return found


def start(**settings: Any) -> nissa.Run:
    return nissa.start("minimal", run_id="run", console__enabled=False, **settings)


def test_values_are_those_of_the_call_and_have_the_time_of_the_step(toy: Toy) -> None:
    with start() as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            for step in range(3):
                entropy, kl = on_device(step + 0.5), torch.tensor(step + 0.25)
                run.log({"policy/entropy": entropy}, kl=kl)
                entropy.zero_()
                kl.zero_()
                toy.step(run)
    assert scalars("policy/entropy") == [0.5, 1.5, 2.5]
    assert scalars("kl") == [0.25, 1.25, 2.25]
    times = {point.time for point in points(FOLDER, "nissa.step")}
    assert {point.time for point in points(FOLDER, "nissa.scalar")} == times


def test_several_calls_before_a_step_are_averaged_and_items_are_summed(toy: Toy) -> None:
    with start() as run:
        run.watch(toy.model, toy.optimizer)
        for part in range(4):
            run.log(x=on_device(part), mixed=on_device(1.0) if part else 5.0)
            # In bfloat16 the sum of these is rounded to 8.
            run.log(half=on_device([2.0, 2.015625, 2.015625, 2.015625][part], torch.bfloat16))
            run.log_items(samples=8, tokens=on_device(100 + part, torch.int64))
        toy.step(run)
        run.log_items(tokens=np.int64(10))  # type: ignore[arg-type]  # as callers do  # type: ignore[arg-type]  # as callers do
        toy.step(run)
    assert (scalars("x"), scalars("mixed")) == ([1.5], [2.0])
    assert scalars("half") == [pytest.approx(2.01171875, abs=1e-12)]
    assert items() == {"samples": 32, "tokens": 416}


def test_every_form_of_a_number_is_accepted() -> None:
    forms: dict[str, Any] = {
        "int": 2, "float": 2.0, "bool": True, "numpy": np.float32(2), "tensor": torch.tensor([2.0]),
        "bfloat16": torch.tensor(2.0, dtype=torch.bfloat16), "grad": torch.tensor(2.0, requires_grad=True),
        "nan": float("nan"),
    }  # fmt: skip
    with start() as run:
        run.log(forms)
    assert {name: scalars(name) for name in forms if name != "nan"} == {
        name: [1.0 if name == "bool" else 2.0] for name in forms if name != "nan"
    }
    assert np.isnan(scalars("nan")).all()


def test_without_a_watched_optimizer_every_call_has_a_point() -> None:
    with start() as run:
        run.log(a=1.0)
        run.log(a=on_device(3.0))
        run.log_items(samples=4)
        run.flush()
    assert scalars("a") == [1.0, 3.0]
    assert items() == {"samples": 4}


def test_what_is_logged_after_the_last_step_is_not_lost(toy: Toy) -> None:
    with start() as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            toy.step(run)
            run.log(after_step=1.0)
            run.validate(loss=0.5)
            run.log(after_validation=2.0)
        run.log(after_epoch=3.0)
        with run.epoch(1):
            toy.step(run)
        run.log(at_end=4.0)
    for value, name in enumerate(("after_step", "after_validation", "after_epoch", "at_end"), start=1):
        assert scalars(name) == [value], name
    steps = [point.time for point in points(FOLDER, "nissa.step")]
    (late,) = [p for p in points(FOLDER, "nissa.scalar") if p.attributes["nissa.scalar.name"] == "after_epoch"]
    assert steps[0] < late.time < steps[1]


def test_a_clipping_by_the_trainer_is_exported_with_the_step(toy: Toy) -> None:
    with start() as run:
        run.watch(toy.model, toy.optimizer)
        for norm, limit in ((4.0, 1.0), (on_device(0.25), 1.0), (8.0, float("inf"))):
            run.log_clip(norm, limit)
            if isinstance(norm, torch.Tensor):
                norm.zero_()
            toy.step(run)
    assert [point.value for point in points(FOLDER, "nissa.clip.norm")] == [4.0, 0.25, 8.0]
    assert [point.value for point in points(FOLDER, "nissa.clip.factor")] == [pytest.approx(1 / (4 + 1e-6)), 1, 1]


def test_environments_have_streams_of_their_own() -> None:
    with start() as run:
        for env in range(2):
            run.environment(env).log(x=env)
            run.environment(env).log_items(samples=env + 1)
    found = {p.attributes["nissa.env.id"]: p.value for p in points(FOLDER, "nissa.items")}
    assert found == {"0": 1, "1": 2}
    assert sorted(scalars("x")) == [0, 1]


def test_the_limit_of_names_is_visible(caplog: pytest.LogCaptureFixture) -> None:
    with start(limits__max_scalars=2) as run:
        for _ in range(2):
            run.log(a=1, b=2, c=3)
            run.log_items(a=1, b=2, c=3, d=4)
        assert run.hub.rejections == {"scalar_limit": 2}
    assert (scalars("a"), scalars("b"), scalars("c")) == ([1, 1], [2, 2], [])
    assert items() == {"a": 2, "b": 4, "other": 14}
    said = [record.getMessage() for record in caplog.records if "limits.max_scalars" in record.getMessage()]
    assert len(said) == 2
    assert "More than 2 names of logged scalars" in said[0]


REFUSED: list[tuple[str, dict[Any, Any], str]] = [
    ("log", {"x": "0.5"}, r"log\(\): 'x' takes a number .* not str"),
    ("log", {"x": None}, r"'x' takes a number .* not NoneType"),
    ("log", {"x": [1.0]}, r"not list"),
    ("log", {"x": torch.ones(2)}, r"'x' takes one number, not a tensor of shape"),
    ("log", {"x": torch.ones((), device="meta")}, r"meta tensor"),
    ("log", {"x": torch.tensor(1j)}, r"complex tensor"),
    ("log", {"x": 10**400}, r"too large"),
    ("log", {1: 0.5}, r"A int is no name"),
    ("log", {" ": 0.5}, r"' ' is no name"),
    ("log", {"x" * 201: 0.5}, r"use 1 to 200 characters"),
    ("log_items", {"x": -1}, r"log_items\(\): 'x' takes a number from 0"),
    ("log_items", {"x": 0.5}, r"whole number, not 0.5"),
    ("log_items", {"x": True}, r"whole number, not bool"),
    ("log_items", {"x": "many"}, r"whole number, not str"),
    ("log_items", {"x": on_device(2.0)}, r"convert it with .long\(\)"),
]


@for_each("call, passed, fix", REFUSED, ids=lambda case: str(case[2]))
def test_an_invalid_value_is_refused_and_costs_no_other(call: str, passed: dict[Any, Any], fix: str) -> None:
    good: dict[Any, Any] = {"good": 2}
    memory = nissa.MemoryBackend()
    with nissa.start("minimal", console__enabled=False, backends=[memory]) as run:
        with pytest.raises(InvalidValueError, match=fix):
            getattr(run, call)(passed | good)
        run.flush()
    assert any(good in (getattr(m, "scalars", None), getattr(m, "items", None)) for m in memory.measurements)


CLIPS: list[tuple[tuple[Any, Any], str]] = [
    (("big", 1.0), r"log_clip\(\): takes a number"),
    ((-1.0, 1.0), r"a norm of at least 0, not -1"),
    ((1.0, None), r"takes a number .* not NoneType"),
    ((1.0, float("nan")), r"max_norm of at least 0, not nan"),
    ((torch.ones(2), 1.0), r"takes one number"),
]


@for_each("passed, fix", CLIPS, ids=str)
def test_an_invalid_clipping_is_refused(passed: tuple[Any, Any], fix: str) -> None:
    with nissa.start("minimal", console__enabled=False) as run, pytest.raises(InvalidValueError, match=fix):
        run.log_clip(*passed)


def test_a_mistake_in_a_loop_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nissa"), start(strict=False) as run:
        for _ in range(3):
            run.log("loss")  # type: ignore[arg-type]
            run.log(x="a", y=1.0)  # type: ignore[arg-type]
        assert run.hub.rejections == {"invalid_value": 6}
    assert scalars("y") == [1.0] * 3
    assert len([record for record in caplog.records if "log():" in record.getMessage()]) == 1


def test_hyperparameters_are_on_the_epochs_and_in_the_report() -> None:
    config = {"lr": 3e-4, "optimizer": {"betas": (0.9, 0.95), "name": "adamw"}, "hf_token": "hf_secret", "amp": None}
    with start(run_config=config) as run:
        run.log(kl=0.5)
        with run.epoch(0):
            pass
    expected = {"lr": 3e-4, "optimizer.betas": [0.9, 0.95], "optimizer.name": "adamw", "hf_token": "***", "amp": "None"}
    prefix = "nissa.run.config."
    for name in ("epoch", "epoch.started"):
        (span,) = [each for each in spans(FOLDER) if each.name == name]
        found = {k.removeprefix(prefix): v for k, v in span.attributes.items() if k.startswith(prefix)}
        assert {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()} == expected
        assert span.attributes["nissa.run.id"] == "run"
    (begun,) = [each for each in records(FOLDER) if each["eventName"] == "nissa.event.training_started"]
    assert "nissa.run.config.optimizer.name" in str(begun)
    page = Path(write_report(FOLDER).path).read_text()
    for text in ("Hyperparameters", "optimizer.betas", "0.9, 0.95", "Values of run.log()", "kl"):
        assert text in page, text
    everything = page + "".join(path.read_text() for path in FOLDER.glob("*.jsonl"))
    assert "hf_secret" not in everything


def test_a_run_config_without_names_is_a_mistake_at_start() -> None:
    for wrong in ("lr=1", ["lr"], 5, dict):
        with pytest.raises(nissa.ConfigurationError, match="run_config"):
            nissa.start("minimal", run_config=wrong)
    assert nissa.current_run() is None
