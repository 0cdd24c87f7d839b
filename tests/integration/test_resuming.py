"""Runs that another process continues from a checkpoint."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa import ConfigurationError, InvalidValueError, Stage
from nissa.recordings.values import attributes
from tests.integration.conftest import Toy
from tests.support import points, records, spans

pytestmark = pytest.mark.usefixtures("patient")


def checkpointed(state: dict[str, Any], way: str) -> Any:
    if way == "json":
        return json.loads(json.dumps(state, allow_nan=False))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("way", ["json", "torch"])
def test_run_id_steps_seeds_and_epoch_go_on(toy: Toy, another_toy: Toy, way: str) -> None:
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        env = run.environment("b")
        env.watch(another_toy.model, another_toy.optimizer, name="net")
        seed = run.germinate("s", blueprint="conv", slot="a")
        seed.advance(Stage.TRAINING)
        other = env.germinate("s", blueprint="norm")
        with run.epoch(0):
            for _ in range(3):
                toy.step(run)
        run.begin_epoch(1)
        for _ in range(2):
            toy.step(run)
        for _ in range(4):
            another_toy.step(env)
        state = checkpointed(run.state_dict(), way)
    before = len((run.directory or Path()).joinpath("traces.jsonl").read_text().splitlines())

    fresh, fresh_other = Toy(), Toy(seed=1)
    with nissa.start("standard", console__enabled=False, resume=state) as resumed:
        assert (resumed.run_id, resumed.directory) == (run.run_id, run.directory)
        handle = resumed.resume_seed(state["seeds"][0], module=fresh.model)
        (same,) = resumed.seeds
        (second,) = resumed.environment("b").seeds
        assert [each.stage for each in (handle, same, second)] == [Stage.TRAINING, Stage.TRAINING, Stage.GERMINATED]
        assert (handle.trace_id, second.trace_id) == (seed.trace_id, other.trace_id)
        resumed.watch(fresh.model, fresh.optimizer)
        resumed.environment("b").watch(fresh_other.model, fresh_other.optimizer, name="net")
        with resumed.epoch(1):
            for _ in range(2):
                fresh.step(resumed)
        fresh_other.step(resumed.environment("b"))
        assert resumed.diagnose().step == 6
        handle.cull(reason="done")
    folder = run.directory
    assert folder is not None
    assert [p.value for p in points(folder, "nissa.step") if "nissa.env.id" not in p.attributes] == list(range(7))
    assert [p.value for p in points(folder, "nissa.step") if p.attributes.get("nissa.env.id") == "b"] == list(range(5))
    found = [each for each in spans(folder) if not each.name.endswith(".started")]
    assert len(found) > before / 2
    first, later = (each for each in found if each.name == "seed" and "nissa.env.id" not in each.attributes)
    assert (first.trace_id, first.span_id) == (later.trace_id, later.parent_id)
    assert (first.attributes["nissa.seed.outcome"], later.attributes["nissa.seed.outcome"]) == ("interrupted", "culled")
    first, later = (each for each in found if each.name == "epoch" and each.attributes["nissa.epoch"] == 1)
    assert (first.trace_id, first.span_id) == (later.trace_id, later.parent_id)
    starts = [attributes(each) for each in records(folder) if each["eventName"] == "nissa.event.training_started"]
    assert [each.get("nissa.event.attempt") for each in starts] == [None, 1]


def test_a_later_epoch_has_a_trace_of_its_own(toy: Toy) -> None:
    run = nissa.start("standard", console__enabled=False)
    run.watch(toy.model, toy.optimizer)
    run.begin_epoch(4)
    state = run.state_dict()
    run.close()
    with nissa.start("standard", console__enabled=False, resume=state) as resumed, resumed.epoch(5):
        pass
    assert run.directory is not None
    first, later = (each for each in spans(run.directory) if each.name == "epoch")
    assert first.trace_id != later.trace_id
    assert later.parent_id is None


def test_steps_that_loss_scaling_skipped_do_not_count(toy: Toy) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer, scaler=scaler)
        for step in range(5):
            toy.optimizer.zero_grad()
            torch.autograd.backward(scaler.scale(toy.model(torch.ones(2, 8)).sum()))
            if step in {1, 3}:
                next(toy.model.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]
            scaler.step(toy.optimizer)
            scaler.update()
        state = run.state_dict()
    assert state["steps"] == [{"env_id": None, "name": None, "steps": 3}]


def test_a_state_of_a_resumed_run_keeps_what_is_not_watched_again(toy: Toy) -> None:
    with nissa.start("standard", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer, name="generator")
        toy.step()
        state = run.state_dict()
    with nissa.start("standard", console__enabled=False, resume=state) as resumed:
        again = resumed.state_dict()
    assert again["steps"] == state["steps"]
    assert (state["attempt"], again["attempt"]) == (0, 1)


def test_a_state_that_cannot_be_used_is_refused_before_anything_changes() -> None:
    with nissa.start("standard", console__enabled=False) as run:
        state = run.state_dict()
        for broken in ({}, {"version": 1}, [1], {**state, "version": 99}):
            with pytest.raises(ConfigurationError, match=r"what run.state_dict\(\) returned"):
                nissa.start(resume=broken, replace=True)  # type: ignore[arg-type]
        for damaged in ({**state, "steps": None}, {**state, "seeds": [{}]}, {**state, "epochs": [{}]}):
            with pytest.raises(ConfigurationError):
                nissa.start(resume=damaged, replace=True)
        with pytest.raises(ConfigurationError, match="leave one of them out"):
            nissa.start(resume=state, run_id="other", replace=True)
        assert not run.closed


def test_a_seed_of_another_environment_names_the_call_that_resumes_it() -> None:
    with nissa.start("standard", console__enabled=False) as run:
        mine, theirs = run.germinate("a").state_dict(), run.environment(0).germinate("b").state_dict()
    with nissa.start("standard", console__enabled=False) as run:
        with pytest.raises(InvalidValueError, match=r"resume it with run\.resume_seed\(state\)"):
            run.environment(0).resume_seed(mine)
        with pytest.raises(InvalidValueError, match=r"resume it with run\.environment\('0'\)\.resume_seed\(state\)"):
            run.resume_seed(theirs)
        assert run.resume_seed(mine).seed_id == "a"
        assert run.environment("0").resume_seed(theirs).seed_id == "b"
