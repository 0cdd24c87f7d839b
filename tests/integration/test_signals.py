"""SIGTERM inside a critical section waits until the section is left, then ends the run as at any other moment."""

import json
import signal
from pathlib import Path

import pytest

from tests.support import finish, points, script, spans

_SCRIPT = """
    import json, os, signal, sys, time
    from pathlib import Path
    import torch, nissa
    from nissa import GateResult, Stage

    torch.set_num_threads(1)

    def train(run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.watch(model, optimizer)
        for epoch in range(2):
            with run.epoch(epoch):
                seed = run.germinate(f"seed-{epoch}", blueprint="conv", slot="r0c0", parameters=10)
                seed.advance(Stage.TRAINING)
                seed.gate(GateResult(gate="G2", passed=False, checks_failed=("gain_0.1",)))
                seed.isolation_violation()
                loss = model(torch.randn(8, 4)).square().mean()
                optimizer.zero_grad(); loss.backward(); run.log_loss(loss); optimizer.step()
                seed.cull(reason="no improvement", improvement=-0.01)
                run.validate(loss=1.0, accuracy=0.5, per_class_accuracy={"cat": 0.5})
                run.analytics.summary_table(); run.analytics.snapshot(); run.analytics.prior("conv")
                run.hub.emit({"event_type": "SEED_STAGE_CHANGED", "seed_id": "foreign", "data": {"to": "CULLED"}})
        run.resume_seed(run.germinate("open", blueprint="conv").state_dict() | {"seed_id": "again"})

    def traced(name, target):
        run = nissa.start("diagnostic", run_id=name, console__enabled=False, strict=False)
        run.germinate("alive", blueprint="conv")
        run.flush(10)
        sections, passed = run.hub.sections, {}

        def line(frame, event, _):
            if event == "line" and sections.inside:
                point = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                if point not in passed:
                    passed[point] = None
                    if point == target:
                        signal.raise_signal(signal.SIGTERM)
            return line

        sys.settrace(lambda frame, event, _: line if f"{os.sep}nissa{os.sep}" in frame.f_code.co_filename else None)
        train(run)
        sys.settrace(None)
        run.close()
        return list(passed)

    def forked(name, target):
        read, write = os.pipe()
        began, pid = time.monotonic(), os.fork()
        if pid == 0:
            os.write(write, json.dumps(traced(name, target)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return told, status, time.monotonic() - began

    every = int(sys.argv[1])
    told, status, _ = forked("none", None)
    assert status == 0, status
    found = json.loads(told)
    results = {"all": found, "ends": {}}
    for number, point in enumerate(found[::every]):
        for attempt in range(3):  # a line that depends on what has arrived in time is not reached by every run
            name = f"at-{number}-{attempt}"
            told, status, seconds = forked(name, point)
            if not told or point in json.loads(told):
                results["ends"][point] = (name, status, seconds)
                break
    results["tried"] = len(found[::every])
    print(json.dumps(results))
"""

_LIMIT_SECONDS = 60
"""Far above the 5 seconds of the exit timeout: a process that hangs takes forever."""


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=[pytest.mark.full, pytest.mark.timeout(1200)])])
def test_sigterm_inside_any_critical_section_ends_the_run_and_keeps_its_telemetry(tmp_path: Path, every: int) -> None:
    body = _SCRIPT.replace("sys.argv[1]", str(every))
    status, out, err = finish(script(body, folder=tmp_path), timeout=1100)
    assert status == 0, err
    results = json.loads(out.splitlines()[-1])
    files = {point.partition(":")[0] for point in results["all"]}
    assert {"hub.py", "lifecycle.py", "blueprints.py", "rulebook.py", "queue.py"} <= files
    assert len(results["ends"]) >= 0.95 * results["tried"]
    for point, (name, ended, seconds) in results["ends"].items():
        folder = tmp_path / "nissa-runs" / name
        assert ended == -signal.SIGTERM, point
        assert seconds < _LIMIT_SECONDS, point
        outcomes = {span.attributes["nissa.seed.id"]: span.attributes for span in spans(folder) if span.name == "seed"}
        assert outcomes["alive"]["nissa.seed.outcome"] == "interrupted", point
        assert points(folder, "nissa.seed.count"), point
