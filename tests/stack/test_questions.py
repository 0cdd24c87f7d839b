"""The ten questions of the how-to about traces, asked of a real Jaeger about a training whose story is known."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import spans as names
from nissa.semconv.cardinality import check_name
from scripts.stack import Stack
from tests.cases import for_each
from tests.stack.queries import fetch, settled, tags, trace
from tests.stack.questions import DOCUMENT, SERVICE, Step, questions
from tests.stack.trainers import story
from tests.stack.training import TRANSPORTS, environment, once, service_name, start, train
from tests.support import until

QUESTIONS = questions()
Rows = list[list[str]]
TRANSPORT = TRANSPORTS[0]
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Told:
    """A training of four processes.

    Args:
        seeds: By name, what the processes said that came to their end: trace and history of stages.
        variables: What the document's commands expect in the shell.
    """

    seeds: dict[str, Any]
    variables: dict[str, str]


@pytest.fixture
def told(stack: Stack, stack_folder: Path, tmp_path: Path) -> Told:
    def make() -> dict[str, Any]:
        service = service_name("story")
        environ = environment(stack, TRANSPORT, service) | {"OTEL_BSP_SCHEDULE_DELAY": "500"}
        state = str(tmp_path / "seed.json")
        first = train("story", tmp_path, environ, "whole", state)
        second = train("story", tmp_path, environ, "resume", state)
        _end(stack, tmp_path, environ, "ended", signal.SIGTERM)
        _end(stack, tmp_path, environ, "lost", signal.SIGKILL)
        return {"service": service, "seeds": first, "resumed": second["moved"]}

    kept = once(stack_folder, stack, "story", make).told
    until(partial(_ended, stack, kept["resumed"]["trace_id"]), "the end of the story in Jaeger")
    variables = {"SERVICE": kept["service"], "JAEGER": stack.jaeger}
    return Told(kept["seeds"], variables | _spike(stack, kept["service"]))


def _end(stack: Stack, folder: Path, environ: dict[str, str], name: str, how: signal.Signals) -> None:
    """Start a trainer, and end it when Jaeger shows the stage that its seed is in."""
    process = start("story", folder, environ, "wait", name)
    try:
        assert process.stdout is not None
        trace_id = process.stdout.readline().strip()
        assert trace_id, process.communicate()[1]
        until(partial(_named, stack, trace_id, "seed.training.started"), "the stage under way")
        process.send_signal(how)
        assert process.wait(30) == -how
    finally:
        process.kill()
        process.communicate()
    if how is signal.SIGTERM:
        until(partial(_named, stack, trace_id, names.SEED), "the end of the seed")


def _named(stack: Stack, trace_id: str, name: str) -> list[Any]:
    return [span for span in trace(stack, trace_id) if span["operationName"] == name]


def _ended(stack: Stack, trace_id: str) -> bool:
    return len(_named(stack, trace_id, names.SEED)) == 2


def _spike(stack: Stack, service: str) -> dict[str, str]:
    """Return the variables that the document takes from the answer to its question about the spike."""
    asked: dict[str, str | float] = {"service": service, "operation": names.RED_FLAG, "limit": 10}
    found = until(lambda: fetch(f"{stack.jaeger}/api/traces", **asked)["data"], "the red flag")
    (flag,) = [
        span
        for each in found
        for span in each["spans"]
        if span["operationName"] == names.RED_FLAG and tags(span)[attr.RED_FLAG_NAME] == "loss_spike"
    ]
    return {"TRACE": flag["traceID"], "AT": str(flag["startTime"])}


def _step(number: int, part: int = 0) -> Step:
    (steps,) = [steps for heading, steps in QUESTIONS.items() if heading.startswith(f"{number}. ")]
    return steps[part]


def _rows(stack: Stack, told: Told, number: int, part: int = 0) -> Rows:
    return _step(number, part).ask(stack, told.variables)


def test_there_are_ten_questions_and_none_is_asked_without_an_answer() -> None:
    assert [heading.partition(".")[0] for heading in QUESTIONS] == [str(number) for number in range(1, 11)]
    assert all(QUESTIONS.values())
    assert DOCUMENT.read_text().count("```sh") == 1 + sum(map(len, QUESTIONS.values()))


ALL = [(heading, part) for heading, steps in QUESTIONS.items() for part in range(len(steps))]


@for_each("heading, part", ALL)
def test_the_page_and_the_api_are_asked_the_same(heading: str, part: int) -> None:
    step = QUESTIONS[heading][part]
    if step.page is None:
        assert step.path == "/api/traces/$TRACE"
        return
    assert step.path == "/api/traces"
    assert step.search.service == "$SERVICE"
    assert step.page.service == SERVICE
    assert (step.search.operation, step.search.tags, step.search.duration) == (
        step.page.operation,
        step.page.tags,
        step.page.duration,
    )


@for_each("heading, part", ALL)
def test_every_name_in_a_search_is_one_that_is_declared(heading: str, part: int) -> None:
    step = QUESTIONS[heading][part]
    declared = {value for name, value in vars(attr).items() if name.isupper()} | {"otel.status_description"}
    assert {key for key, _ in step.search.tags} <= declared
    assert set(re.findall(r"\.\"([a-z_.]+)\"", step.program)) <= declared
    spans = {value for name, value in vars(names).items() if name.isupper()} | {"seed.training", "seed.started", ""}
    assert step.parameters.get("operation", "") in spans


@for_each("heading, part", ALL)
def test_the_document_shows_what_jaeger_answers(stack: Stack, told: Told, heading: str, part: int) -> None:
    step = QUESTIONS[heading][part]
    shown = "\n".join("\t".join(row) for row in step.ask(stack, told.variables))
    pattern = ".+".join(map(re.escape, step.sample.rstrip("\n").split("…")))
    assert re.fullmatch(pattern, shown), shown


def test_1_seeds_that_were_culled_by_reason(stack: Stack, told: Told) -> None:
    culled = {name: seed for name, seed in told.seeds.items() if seed["history"][-1][0] == "culled"}
    found = _rows(stack, told, 1)
    assert {reason: int(count) for reason, count, _ in found} == {story.NO_GAIN: 2, story.UNSTABLE: 2}
    assert {name for *_, listed in found for name in listed.split()} == culled.keys()


def test_2_blueprints_that_failed_g2_by_check(stack: Stack, told: Told) -> None:
    failed = Counter((blueprint, check_name(check)) for blueprint, checks in story.FAILED for check in checks)
    assert {(blueprint, check): int(count) for blueprint, check, count in _rows(stack, told, 2)} == failed


def test_2_a_search_for_one_check_finds_no_other_gate(stack: Stack, told: Told) -> None:
    asked = dict(_step(2).search.tags) | {attr.GATE_CHECK: "age"}
    found = _search(stack, told, names.GATE, asked)
    assert found == {told.seeds["weak"]["trace_id"]}
    assert _search(stack, told, names.GATE, asked | {attr.GATE_NAME: "G1"}) == set()


def _search(stack: Stack, told: Told, operation: str, asked: dict[str, str]) -> set[str]:
    query = {"service": told.variables["SERVICE"], "operation": operation, "tags": json.dumps(asked)}
    return {each["traceID"] for each in fetch(f"{stack.jaeger}/api/traces", **query)["data"] or []}


def test_3_training_stages_that_lasted_the_longest_first(stack: Stack, told: Told) -> None:
    lasted = {name: _seconds(seed["history"], "training") for name, seed in told.seeds.items()}
    wanted = sorted(((lasted[name], name) for name in lasted if lasted[name] >= story.SLOW_SECONDS - 1), reverse=True)
    found = [(float(seconds), name) for seconds, name, _ in _rows(stack, told, 3)]
    assert [name for _, name in found] == [name for _, name in wanted]
    assert [seconds for seconds, _ in found] == pytest.approx([seconds for seconds, _ in wanted], abs=1e-5)
    assert found[0][1] == "patient"


def _seconds(history: list[Any], stage: str) -> float:
    """Return how long a stage of an ended seed lasted; 0 for one that it was not in, or is in still."""
    times: list[int] = [at for _, at in history]
    names = [name for name, _ in history]
    return sum((after - at) / SECOND for name, at, after in zip(names, times, times[1:], strict=False) if name == stage)


def test_4_seeds_that_were_cut_off(stack: Stack, told: Told) -> None:
    reasons = {seed: (stage, reason) for seed, stage, reason in _rows(stack, told, 4)}
    assert reasons.keys() == {"ended", "moved"}
    assert reasons["ended"] == ("training", "SIGTERM")


def test_5_seeds_whose_end_nobody_told(stack: Stack, told: Told) -> None:
    assert _rows(stack, told, 5) == [["lost", "conv_light", "training"]]


def test_6_the_loss_spike(stack: Stack, told: Told) -> None:
    epoch, _ = story.SPIKE
    ((trace_id, at, *place, message),) = _rows(stack, told, 6)
    assert place == [str(epoch), str(story.number(*story.SPIKE))]
    assert "9.000" in message
    steps = [span for span in trace(stack, trace_id) if span["operationName"] == names.STEP]
    (spiked,) = [span for span in steps if tags(span)[attr.LOSS] == 9.0]
    assert spiked["startTime"] <= int(at) <= spiked["startTime"] + spiked["duration"] + 1


def test_6_the_epoch_of_the_loss_spike(stack: Stack, told: Told) -> None:
    worst, _, (kind, epoch, narrative) = _rows(stack, told, 6, 1)
    assert worst == ["step", str(story.number(*story.SPIKE)), "9"]
    assert (kind, epoch) == ("validation", str(story.SPIKE[0]))
    assert narrative


def test_6_what_seeds_did_in_that_epoch(stack: Stack, told: Told) -> None:
    found = _rows(stack, told, 6, 2)
    began = [(seed, name) for seed, name, *_ in found if name != names.GATE]
    assert began == [("unstable", "seed.germinated"), ("unstable", "seed.training")]
    gates = [(name, passed) for _, kind, name, passed in found if kind == names.GATE]
    assert gates == [("G1", "false"), ("G2", "true")]


def test_6_the_seeds_that_were_alive(stack: Stack, told: Told) -> None:
    at = int(told.variables["AT"]) * 1000
    alive = {}
    for name, seed in told.seeds.items():
        before = [stage for stage, since in seed["history"] if since <= at]
        if before and before[-1] not in {"culled", "fossilized"}:
            alive[name] = before[-1]
    assert {name: stage for name, _, stage in _rows(stack, told, 6, 3)} == alive
    assert "early" not in alive  # it had died by then


def test_7_what_kept_seeds_brought(stack: Stack, told: Told) -> None:
    assert _rows(stack, told, 7) == [["conv_light", "2", "0.025"]]


def test_8_slow_steps(stack: Stack, told: Told) -> None:
    epoch, _ = story.SLOW
    (seconds, *place), *_ = _rows(stack, told, 8)
    assert place == [str(story.number(*story.SLOW)), str(epoch)]
    assert float(seconds) >= story.SLOW_SECONDS


def test_9_checkpoints_that_were_not_saved(stack: Stack, told: Told) -> None:
    assert _rows(stack, told, 9) == [[f"epoch-{story.NO_DISK}.pt", str(story.NO_DISK), "OSError"]]


def test_10_seeds_that_went_on(stack: Stack, told: Told) -> None:
    assert _rows(stack, told, 10) == [["moved", "2", "interrupted fossilized"]]


def test_a_shell_prints_the_same(stack: Stack, told: Told) -> None:
    if shutil.which("jq") is None or shutil.which("curl") is None:
        pytest.skip("no curl or no jq on this machine; the other tests do without")
    commands = re.findall(r"^```sh\n(curl.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    for command, (heading, part) in zip(commands, ALL, strict=True):
        done = subprocess.run(
            ["bash", "-c", command],
            env={"PATH": os.environ["PATH"], **told.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert settled(partial(QUESTIONS[heading][part].ask, stack, told.variables), rows) == rows
