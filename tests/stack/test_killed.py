"""What Jaeger knows of a trainer that was ended from outside.

Nothing runs in a process that gets SIGKILL. What it leaves behind is what the SDK's batch processor had sent: each
span, and each ``.started`` twin of one that lasts, leaves at most ``OTEL_BSP_SCHEDULE_DELAY`` (5 s unless set) after
its end, and what is younger is lost. SIGTERM is answered by sending everything, whatever that delay is.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.preloaded import Process
from tests.stack.queries import links, parent, settled, tags, trace
from tests.stack.trainers.endless import STATUS
from tests.stack.training import TRANSPORTS, Transport, environment, service_name, start

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS, ids=str)


@contextmanager
def _training(
    stack: Stack, folder: Path, transport: Transport, *arguments: str, **settings: str
) -> Iterator[tuple[Process, str]]:
    """Yield a trainer in the middle of a stage, and the trace of its seed; it is ended if the block does not."""
    process = start("endless", folder, environment(stack, transport, service_name("ended")) | settings, *arguments)
    try:
        assert process.stdout is not None
        trace_id = process.stdout.readline().strip()
        assert trace_id, process.communicate()[1]
        yield process, trace_id
    finally:
        process.kill()
        process.communicate()


def test_a_killed_trainer_leaves_what_was_sent_and_shows_what_was_under_way(
    stack: Stack, tmp_path: Path, transport: Transport
) -> None:
    sent = ["seed.germinated", "seed.germinated.started", "seed.started", "seed.training.started"]
    with _training(stack, tmp_path, transport, OTEL_BSP_SCHEDULE_DELAY="500") as (process, seed):
        assert settled(lambda: _operations(stack, seed), sent) == sent
        assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert _operations(stack, seed) == sent


def test_a_terminated_trainer_leaves_every_span_and_dies_as_without_us(
    stack: Stack, tmp_path: Path, transport: Transport
) -> None:
    bare = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    assert bare.stdout is not None
    bare.stdout.readline()
    bare.terminate()
    bare.communicate()
    with _training(stack, tmp_path, transport) as (process, seed):
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == bare.returncode == -signal.SIGTERM
    assert err == ""
    _whole(stack, seed, reason="SIGTERM")


def test_an_application_s_own_handler_decides_how_it_ends(stack: Stack, tmp_path: Path, transport: Transport) -> None:
    with _training(stack, tmp_path, transport, "own-handler") as (process, seed):
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == STATUS
    assert err == ""
    _whole(stack, seed, reason="exit status 3")


def _operations(stack: Stack, trace_id: str) -> list[str]:
    return sorted(span["operationName"] for span in trace(stack, trace_id))


def _whole(stack: Stack, trace_id: str, *, reason: str) -> None:
    """Check that every span of the seed and of the epochs it met is there, the interrupted ones marked."""
    ended = ["seed", "seed.germinated", "seed.training"]
    expected = sorted([*ended, *(name + names.STARTED_SUFFIX for name in ended)])
    # Batches of spans are sent in parallel: the seed may be there before its stages.
    assert settled(lambda: _operations(stack, trace_id), expected) == expected
    by_name = {span["operationName"]: span for span in trace(stack, trace_id)}
    root = tags(by_name[names.SEED])
    assert root[attr.SEED_OUTCOME] == tags(by_name["seed.training"])[attr.SEED_OUTCOME] == "interrupted"
    assert (root["otel.status_code"], root["otel.status_description"]) == ("ERROR", reason)
    _interrupted_epoch(stack, by_name)


def _interrupted_epoch(stack: Stack, seed: dict[str, Any]) -> None:
    """Check the epoch in which the seed's stage began, and that everything hangs where it should."""
    root, training = seed["seed"], seed["seed.training"]
    assert parent(root) is None
    assert {parent(seed[name]) for name in ("seed.started", "seed.germinated", "seed.training")} == {root["spanID"]}
    assert parent(seed["seed.training.started"]) == training["spanID"]
    ((trace_id, span_id),) = links(training)
    expected = {"epoch", "epoch.started", "step"}
    assert settled(lambda: {*_operations(stack, trace_id)} - {names.RED_FLAG}, expected) == expected
    epoch = {span["operationName"]: span for span in trace(stack, trace_id)}
    assert epoch["epoch"]["spanID"] == span_id
    assert tags(epoch["epoch"])[attr.EPOCH] == 1
    assert tags(epoch["epoch"])["error"] is True
