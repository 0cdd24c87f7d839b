"""A signal at any moment of a training ends it in time, and what had ended a second before is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.outcomes import outcomes
from tests.support import finish, script

_SCRIPT = """
    import json, os, random, signal, sys, time, traceback
    import torch, nissa
    from nissa import Stage

    torch.set_num_threads(1)
    count, chance = int(sys.argv[1]), random.Random(sys.argv[2])
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def train(name, spooled):
        if spooled:  # nothing listens there
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        run = nissa.start("standard", run_id=name, console__enabled=False)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.watch(model, optimizer)
        run.germinate("open", blueprint="conv")
        facts, number = open(f"{name}.facts", "w", buffering=1), 0
        while True:
            with run.epoch(number):
                seed = run.germinate(f"seed-{number}", blueprint="conv", slot="r0c0")
                seed.advance(Stage.TRAINING)
                for _ in range(3):
                    loss = model(torch.ones(8, 4)).square().mean()
                    optimizer.zero_grad(); loss.backward(); run.log_loss(loss); optimizer.step()
                    time.sleep(0.003)
                run.validate(loss=1.0)
                seed.cull(reason="no gain")
                facts.write(json.dumps([f"seed-{number}", time.time()]) + "\\n")
            number += 1

    waiting = [
        {"name": f"run-{number}", "spooled": number % 4 > 1, "signal": signal.SIGHUP if number % 2 else signal.SIGTERM,
         # Of five moments, two are counted from the fork, and fall into the start too; the others from the first fact.
         "trained": number % 5 > 1, "after": chance.uniform(0, 3) if number % 5 < 2 else chance.uniform(1.2, 3)}
        for number in range(count)
    ]
    active, ended = {}, []
    while waiting or active:
        while waiting and len(active) < 8:
            child = waiting.pop()
            child["due"] = None if child["trained"] else time.monotonic() + child["after"]
            child["sent"] = None
            pid = os.fork()
            if pid == 0:
                try:
                    train(child["name"], child["spooled"])
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(99)
            active[pid] = child
        for pid, child in list(active.items()):
            now = time.monotonic()
            if child["due"] is None and os.path.exists(facts := f"{child['name']}.facts") and os.path.getsize(facts):
                child["due"] = now + child["after"]
            if child["sent"] is None and child["due"] is not None and now >= child["due"]:
                child["sent"], child["moment"] = now, time.time()
                os.kill(pid, child["signal"])
            if child["sent"] is not None and now - child["sent"] > 60:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                child["status"], child["seconds"] = os.waitstatus_to_exitcode(status), now - (child["sent"] or now)
                ended.append(active.pop(pid))
        time.sleep(0.002)
    print(json.dumps(ended))
"""

_EXIT_SECONDS = 5.0
"""Default of ``limits.exit_timeout_seconds``."""


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(1200)])])
def test_a_signal_at_a_random_moment_ends_a_training_in_time_and_loses_nothing_older_than_a_second(
    tmp_path: Path, count: int
) -> None:
    body = _SCRIPT.replace("sys.argv[1]", str(count)).replace("sys.argv[2]", str(count))
    status, out, err = finish(script(body, folder=tmp_path), timeout=1100)
    assert status == 0, err
    ended: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    assert len(ended) == count
    checked = {True: 0, False: 0}
    for child in ended:
        assert child["status"] == -child["signal"], (child, err)
        assert child["seconds"] < _EXIT_SECONDS + 1.5, child
        path = tmp_path / f"{child['name']}.facts"
        facts = [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []
        old = {name for name, moment in facts if moment < child["moment"] - 1}
        if old:
            found = outcomes(tmp_path / "nissa-runs" / child["name"], spooled=child["spooled"])
            assert old <= {name for name, outcome in found.items() if outcome == "culled"}, child
            assert found["open"] == "interrupted", child
            checked[child["spooled"]] += 1
    assert min(checked.values()) >= count // 4
