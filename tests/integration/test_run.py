"""A whole run, as users see it, read back from the files that it wrote."""

import gc
import json
import logging
from collections import Counter
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch

import nissa
from nissa import EventType, GateResult, MemoryBackend, Stage, TelemetryEvent
from nissa.recordings import read
from nissa.testing import FakeClock, Telemetry
from tests.integration.conftest import Toy
from tests.support import finish, points, script, spans, until

pytestmark = pytest.mark.usefixtures("patient")


def test_times_are_those_of_the_events(toy: Toy, nissa_clock: FakeClock, nissa_telemetry: Telemetry) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        nissa_clock.advance(1)
        with run.epoch(0):
            nissa_clock.advance(2)
            seed = run.germinate("s", blueprint="conv", slot="a")
            for _ in range(3):
                nissa_clock.advance(0.5)
                toy.step(run)
            nissa_clock.advance(1)
            run.validate(loss=0.5, accuracy=0.9)
            seed.advance(Stage.TRAINING)
        nissa_clock.advance(10)
        seed.cull(reason="useless", improvement=-0.01)
        nissa_clock.advance(100)

    def offsets(name: str) -> tuple[float, float]:
        span = nissa_telemetry.spans.named(name)[-1]
        return nissa_clock.seconds(span.start), nissa_clock.seconds(span.end)

    assert offsets("epoch") == (1, 5.5)
    assert offsets("validation") == (4.5, 5.5)
    assert offsets("step") == (4, 4.5)
    assert offsets("seed") == (3, 15.5)
    assert offsets("seed.germinated") == (3, 5.5)
    assert offsets("seed.training") == (5.5, 15.5)
    assert offsets("seed.culled") == (15.5, 15.5)
    steps = [(point.value, nissa_clock.seconds(point.time)) for point in nissa_telemetry.metrics.stream("nissa.step")]
    assert steps == [(0, 3.5), (1, 4.0), (2, 4.5)]


class Slow:
    """A backend that takes its time and then fails."""

    def emit(self, _event: TelemetryEvent) -> None:
        sleep(0.3)
        raise OSError("no space left")


@pytest.mark.faults
def test_what_a_backend_of_the_hub_fails_at_last_is_exported_too() -> None:
    with nissa.start("minimal", run_id="r", console__enabled=False, process__describe=False) as run:
        name = run.hub.add_backend(Slow())
        run.germinate("s", blueprint="conv", slot="a")
    counts = [
        point
        for point in points(Path("nissa-runs/r"), "nissa.hub.events")
        if point.attributes["nissa.backend.name"] == name
    ]
    last = {
        point.attributes["nissa.event.type"]: point.value
        for point in counts
        if point.attributes["nissa.event.outcome"] == "failed"
    }
    assert last == {"SEED_GERMINATED": 1, "TRAINING_ENDED": 1}


def test_seeds_of_several_environments_never_mix(toy: Toy, another_toy: Toy) -> None:
    with nissa.start("standard", run_id="r", console__enabled=False) as run:
        envs = [run.environment(0), run.environment(1)]
        for env, each in zip(envs, (toy, another_toy), strict=True):
            env.watch(each.model, each.optimizer)
        seeds = [env.germinate("seed-1", blueprint=f"b{env.env_id}", slot="r0c0") for env in envs]
        for env, each in zip(envs, (toy, another_toy), strict=True):
            with env.epoch(3):
                each.step(env)
                env.validate(loss=0.1, accuracy=0.5)
        seeds[0].advance(Stage.TRAINING)
        seeds[1].cull(reason="no improvement")
        assert (seeds[0].stage, seeds[1].stage) == (Stage.TRAINING, Stage.CULLED)
        assert run.environment("0") is envs[0]
    found = spans(Path("nissa-runs/r"))
    roots = {span.attributes["nissa.env.id"]: span for span in found if span.name == "seed"}
    assert {key: root.attributes["nissa.seed.outcome"] for key, root in roots.items()} == {
        "0": "interrupted",
        "1": "culled",
    }
    assert roots["0"].trace_id != roots["1"].trace_id
    for key, root in roots.items():
        stages = [span for span in found if span.trace_id == root.trace_id]
        assert {span.attributes["nissa.env.id"] for span in stages} == {key}
        assert {span.attributes["nissa.blueprint.id"] for span in stages} == {f"b{key}"}
    losses = points(Path("nissa-runs/r"), "nissa.loss")
    assert {point.attributes["nissa.env.id"] for point in losses} == {"0", "1"}


def test_gates_are_span_events_and_log_events_of_the_stage(nissa_telemetry: Telemetry) -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        seed = run.germinate("s", blueprint="conv")
        seed.gate(GateResult("G1", passed=True, score=1.0))
        seed.advance("training")
        seed.gate(GateResult("G2", passed=False, score=0.2, checks_failed=("improvement_0.10%",), message="too little"))
    training = nissa_telemetry.spans.named("seed.training").one()
    ((name, _, told),) = training.events
    assert name == "nissa.seed.gate"
    assert told["nissa.gate.checks_failed"] == ["improvement_0.10%"]
    assert told["nissa.gate.passed"] is False
    logged = nissa_telemetry.logs.named("nissa.seed.gate").count(2)
    assert [each.attributes["nissa.gate.name"] for each in logged] == ["G1", "G2"]
    assert logged[1].span_id == training.span_id
    failed = nissa_telemetry.metrics.named("nissa.seed.gate.failed_checks")
    assert {point.attributes["nissa.gate.check"] for point in failed} == {"improvement"}


def test_foreign_events_drive_the_same_table() -> None:
    memory = MemoryBackend()
    with nissa.start("minimal", run_id="r", console__enabled=False, backends=[memory]) as run:
        on_telemetry = nissa.get_hub().emitter(percent=True, env_id=0)
        base = {"seed_id": "env0_seed_0", "slot_id": "r0c0"}
        on_telemetry({**base, "event_type": "SEED_GERMINATED", "data": {"blueprint_id": "norm", "params": 100}})
        for before, after in (("GERMINATED", "TRAINING"), ("TRAINING", "CULLED")):
            on_telemetry({**base, "event_type": "SEED_STAGE_CHANGED", "data": {"from": before, "to": after}})
        on_telemetry({**base, "event_type": "SEED_CULLED", "data": {"reason": "slow", "improvement": -0.3}})
        on_telemetry("this is no event")
        (seed,) = run.environment(0).seeds
        assert seed.stage is Stage.CULLED
        assert seed.improvement == pytest.approx(-0.003)
        assert dict(nissa.get_hub().rejections) == {"no_event_type": 1}
    of_seed = [event.to_dict() for event in memory.events if event.seed_id]
    assert [(each["event_type"], each["stage"], each.get("stage_before")) for each in of_seed] == [
        ("SEED_GERMINATED", "germinated", None),
        ("SEED_STAGE_CHANGED", "training", "germinated"),
        ("SEED_CULLED", "culled", "training"),
    ]
    root = next(span for span in spans(Path("nissa-runs/r")) if span.name == "seed")
    assert root.attributes["nissa.seed.cull_reason"] == "slow"
    assert root.attributes["nissa.blueprint.id"] == "norm"
    rejected = [
        point.value
        for point in points(Path("nissa-runs/r"), "nissa.hub.events")
        if point.attributes.get("nissa.event.outcome") == "rejected"
    ]
    assert rejected[-1] == 1


def test_an_illegal_transition_is_told_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with nissa.start("minimal", run_id="r", strict=False, console__enabled=False) as run:
        seed = run.germinate("s", blueprint="conv")
        seed.advance(Stage.BLENDING)
        assert seed.stage is Stage.GERMINATED
    assert "the legal stages are: TRAINING, CULLED" in caplog.text
    span = next(span for span in spans(Path("nissa-runs/r")) if span.name == "seed.germinated")
    assert [name for name, _, _ in span.events] == ["nissa.seed.refused"]
    assert [point.value for point in points(Path("nissa-runs/r"), "nissa.seed.refused_transitions")] == [1]


def test_under_pytest_an_illegal_transition_raises() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        seed = run.germinate("s")
        with pytest.raises(nissa.TransitionError, match="GERMINATED -> BLENDING is not allowed"):
            seed.advance(Stage.BLENDING)
        with pytest.raises(nissa.TransitionError, match="alive already"):
            run.germinate("s")


def test_gradients_in_the_files_are_those_that_the_optimizer_used(toy: Toy) -> None:
    used: dict[int, dict[str, np.ndarray]] = {}

    def copy(*_: object) -> None:
        used[len(used)] = {
            name: np.asarray(parameter.grad.tolist())
            for name, parameter in toy.model.named_parameters()
            if parameter.grad is not None
        }

    with nissa.start("diagnostic", run_id="r", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        toy.optimizer.register_step_pre_hook(copy)
        with run.epoch(0):
            for _ in range(4):
                toy.step(run)
    folder = Path("nissa-runs/r")
    norms = points(folder, "nissa.gradient.norm")
    for name in used[0]:
        of_name = [point.value for point in norms if point.attributes["nissa.parameter.name"] == name]
        expected = [np.linalg.norm(step[name]) for step in used.values()]
        np.testing.assert_allclose(of_name, expected, rtol=1e-6)
    magnitudes = {
        point.attributes["nissa.parameter.name"]: point.raw for point in points(folder, "nissa.gradient.magnitude")
    }
    for name, raw in magnitudes.items():
        everything = np.abs(np.concatenate([step[name].ravel() for step in used.values()]))
        assert int(raw["count"]) == everything.size
        assert raw["sum"] == pytest.approx(everything.sum(), rel=1e-6)
        assert raw["max"] == pytest.approx(everything.max(), rel=1e-6)
        inside = sum(int(count) for count in raw["positive"]["bucketCounts"])
        assert inside + int(raw.get("zeroCount", 0)) == everything.size
        base = 2 ** (2 ** -raw["scale"])
        low = base ** int(raw["positive"]["offset"])
        assert low <= everything[everything > 0].min() * (1 + 1e-12)


def test_a_diverged_loss_is_told_as_such(toy: Toy) -> None:
    with nissa.start("standard", run_id="r", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            toy.step(run)
            run.log_loss(float("nan"))
            toy.optimizer.step()
            snapshot = run.validate(loss=float("inf"), accuracy=0.1)
    assert "nonfinite_loss" in snapshot.red_flags
    assert "Loss is not finite" in snapshot.narrative
    values = [point.raw["asDouble"] for point in points(Path("nissa-runs/r"), "nissa.loss")]
    assert "NaN" in values
    assert "Infinity" in values


def test_a_growing_network_is_followed_through_germinate_and_cull(toy: Toy) -> None:
    with nissa.start("diagnostic", run_id="r", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        with run.epoch(0):
            toy.step(run)
            module = torch.nn.Linear(2, 2)
            seed = run.germinate("s", blueprint="linear", module=module)
            assert seed.parameters == 6
            toy.model.add_module("seed", module)
            toy.optimizer.add_param_group({"params": list(module.parameters())})
            toy.step(run)
            seed.cull(reason="useless")
            toy.model.seed = torch.nn.Identity()
            toy.optimizer.param_groups.pop()
            toy.step(run)
    seen = {
        point.attributes["nissa.parameter.name"]: point.value
        for point in points(Path("nissa-runs/r"), "nissa.gradient.zero_fraction")
    }
    assert set(seen) == {"0.weight", "0.bias", "2.weight", "2.bias", "seed.weight", "seed.bias"}
    counts = {
        point.attributes["nissa.parameter.name"]: int(point.raw["count"])
        for point in points(Path("nissa-runs/r"), "nissa.gradient.magnitude")
    }
    assert counts["seed.weight"] == 4
    assert counts["2.bias"] == 3 * 2


def test_training_goes_on_after_the_run_has_ended(toy: Toy) -> None:
    run = nissa.start("diagnostic", console__enabled=False)
    run.watch(toy.model, toy.optimizer)
    run.close()
    run.close()
    with run.epoch(1):
        toy.step(run)
        snapshot = run.validate(loss=1.0)
        seed = run.germinate("s", blueprint="late")
        seed.advance(Stage.TRAINING)
    assert snapshot.validation_loss == 1.0
    assert seed.stage is Stage.TRAINING
    with pytest.raises(nissa.WatchError, match="has ended"):
        run.watch(toy.model, toy.optimizer)


def test_a_second_run_begins_anew(toy: Toy) -> None:
    for name in ("a", "b"):
        with nissa.start("diagnostic", run_id=name, console__enabled=False) as run:
            run.watch(toy.model, toy.optimizer)
            with run.epoch(0):
                toy.step(run)
            with pytest.raises(nissa.RunActiveError, match="is active in this process"):
                nissa.start()
    for name in ("a", "b"):
        assert [point.value for point in points(Path("nissa-runs") / name, "nissa.step")] == [0]
    assert nissa.get_hub().backends == ()


@pytest.mark.parametrize("exporter", ["files", "spool"])
def test_a_script_may_change_its_working_directory(tmp_path: Path, exporter: str) -> None:
    body = """
    import os, nissa
    from tests.toys import Toy

    toy = Toy()
    with nissa.start("diagnostic", run_id="r", limits__exit_timeout_seconds=0.5) as run:
        run.watch(toy.model, toy.optimizer)
        for epoch in range(3):
            with run.epoch(epoch):
                toy.step(run)
            run.flush(0.2)
            os.chdir("../elsewhere")  # from there, it is itself
    """
    (tmp_path / "elsewhere").mkdir()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if exporter == "spool" else {}
    (tmp_path / "here").mkdir()
    status, _, err = finish(script(body, folder=tmp_path / "here", environ=environ))
    assert status == 0, err
    assert [*(tmp_path / "elsewhere").iterdir()] == []
    recording = read(tmp_path / "here" / "nissa-runs" / "r")
    assert [span.attributes["nissa.epoch"] for span in recording.spans if span.name == "epoch"] == [0, 1, 2]


def test_an_ended_run_leaves_nothing_of_itself_in_memory(toy: Toy) -> None:
    def train(name: str) -> None:
        with nissa.start("diagnostic", run_id=name, console__enabled=False) as run:
            run.watch(toy.model, toy.optimizer)
            with run.epoch(0):
                toy.step(run)

    def ours() -> Counter[str]:
        gc.collect()
        kinds = (type(each) for each in gc.get_objects())
        return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("nissa."))

    train("first")
    once = ours()
    assert once
    for name in ("second", "third"):
        train(name)
    until(lambda: ours() <= once, "the end of what the runs left", timeout=20)


def test_a_lost_run_is_found_again_or_replaced(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    assert nissa.current_run() is None
    nissa.start("diagnostic", run_id="lost", console__enabled=False).watch(toy.model, toy.optimizer)
    gc.collect()
    lost = nissa.current_run()
    assert lost is not None
    assert lost.run_id == "lost"
    with pytest.raises(nissa.RunActiveError, match=r"lost is active .* replace=True"):
        nissa.start()
    with caplog.at_level(logging.WARNING, "nissa"):
        run = nissa.start("diagnostic", run_id="new", console__enabled=False, replace=True)
    assert "The run lost is ended" in caplog.text
    assert lost.closed
    assert nissa.current_run() is run
    run.watch(toy.model, toy.optimizer)
    toy.step(run)
    run.close()
    assert nissa.current_run() is None
    assert [point.value for point in points(Path("nissa-runs") / "new", "nissa.step")] == [0]


def test_in_ipython_a_second_start_replaces_the_first(tmp_path: Path) -> None:
    body = """
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    cell = "import logging, nissa; logging.basicConfig(); run = nissa.start(console__enabled=False)"
    for _ in range(2):
        assert shell.run_cell(cell).success
    assert nissa.current_run() is shell.user_ns["run"]
    """
    status, _, err = finish(script("    import nissa\n" + body, folder=tmp_path))
    assert status == 0, err
    assert err.count("is ended, because another one is started") == 1
    assert len(list((tmp_path / "nissa-runs").iterdir())) == 2


def test_closing_the_hub_ends_the_run() -> None:
    run = nissa.start(console__enabled=False)
    nissa.reset_hub()
    assert run.closed


def test_every_event_type_is_emitted(toy: Toy) -> None:
    memory = MemoryBackend()
    with nissa.start(
        "diagnostic", backends=[memory], console__enabled=False, gradients__exploding_threshold=1e-6
    ) as run:
        run.watch(toy.model, toy.optimizer)
        accuracies = [0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1]
        keep = run.germinate("keep", blueprint="conv")
        drop = run.germinate("drop", blueprint="norm")
        for epoch, accuracy in enumerate(accuracies):
            with run.epoch(epoch):
                toy.step(run)
                run.validate(loss=0.5 if epoch < 8 else 0.1, accuracy=accuracy)  # the end of a plateau
        with run.checkpoint("model.pt"):
            state = json.loads(json.dumps(drop.state_dict()))
        drop.cull(reason="useless")
        run.resume_seed(state)
        keep.isolation_violation("host weights moved")
        keep.advance("training")
        keep.advance("blending")
        keep.gate(GateResult("G3", passed=True))
        keep.fossilize()
    of_other_code = {EventType.LOG_RECORDED, EventType.TORCH_WARNING}
    assert {event.event_type for event in memory.events} == set(EventType) - of_other_code


def test_numbers_given_as_tensors_are_read() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        snapshot = run.validate(loss=torch.tensor(0.25), accuracy=torch.tensor([0.5]))
    assert (snapshot.validation_loss, snapshot.validation_accuracy) == (0.25, 0.5)
    assert snapshot.epoch is None
    assert snapshot.gradient_health is None


def test_the_end_of_a_run_prints_where_its_telemetry_is(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    with nissa.start("standard", run_id="mine") as run:
        run.watch(toy.model, toy.optimizer)
        toy.step(run)
    run.close()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nissa:")]
    command = line.partition("view it with: ")[2]
    assert command == f"nissa report {Path('nissa-runs') / 'mine'}"
    assert (Path(command.split()[-1]) / "metrics.jsonl").is_file()


def test_a_run_whose_output_is_closed_ends_quietly(tmp_path: Path) -> None:
    body = """
    import os, sys, nissa
    run = nissa.start("standard")
    sys.stdout.close()
    sys.stderr.close()
    run.close()
    sys.stdout = sys.stderr = open(os.devnull, "w")
    """
    assert finish(script(body, folder=tmp_path)) == (0, "", "")
