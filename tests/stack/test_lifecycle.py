"""Servers that end and come back, and commands that handle them."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from nissa.semconv import spans as names
from scripts.stack import Stack
from scripts.stack_build import binary, locked, missing
from scripts.stack_processes import Processes
from scripts.stack_settings import ROOT, SERVERS, Ports
from tests.stack.queries import settled, spans, value
from tests.stack.sending import meter, tracer
from tests.support import until


def test_what_was_accepted_survives_a_killed_collector(own_stack: Stack) -> None:
    service = f"test-{uuid4().hex[:12]}"
    own_stack.kill("jaeger")
    with tracer(own_stack, service) as traced:
        traced.start_span(names.SEED).end()
    own_stack.kill("collector")
    own_stack.start_one("jaeger")
    own_stack.start_one("collector")
    assert names.SEED in until(lambda: spans(own_stack, service), "the span that waited on disk")


def test_a_restart_of_any_server_loses_nothing_that_was_accepted(own_stack: Stack) -> None:
    service = f"test-{uuid4().hex[:12]}"
    with tracer(own_stack, service) as traced, meter(own_stack, service) as measured:
        traced.start_span(names.SEED).end()
        measured.create_counter("restarts").add(3)

    def arrived() -> tuple[bool, float | None]:
        return names.SEED in spans(own_stack, service), value(own_stack, f'restarts_total{{job="{service}"}}')

    everything: tuple[bool, float | None] = (True, 3.0)
    assert settled(arrived, everything) == everything
    for server in SERVERS:
        own_stack.kill(server)
    for server in SERVERS:
        own_stack.start_one(server)
    assert settled(arrived, everything) == everything


def test_commands_start_and_end_exactly_their_own_processes(stack: Stack, tmp_path: Path) -> None:
    if stack.docker:
        pytest.skip("an engine answers, so the commands use it")
    ports = Ports.free()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert _command("status", ports, tmp_path, expect=1).count("down") == 3
        said = _command("up", ports, tmp_path)
        assert said.count("healthy") == 3
        assert f"http://127.0.0.1:{ports.otlp_grpc}" in said
        assert _command("up", ports, tmp_path).count("healthy") == 3
        _command("down", ports, tmp_path)
        assert not Processes(_home(tmp_path), ports, {}).running()
        assert stranger.poll() is None
        assert stack.healthy()
    finally:
        _command("clean", ports, tmp_path)
        stranger.communicate()
    assert not _home(tmp_path).exists()


def test_a_process_id_that_somebody_else_got_is_left_alone(tmp_path: Path) -> None:
    servers = Processes(tmp_path, Ports.free(), {})
    (tmp_path / "processes.json").write_text(f'{{"jaeger": [{os.getpid()}, "long ago"]}}')
    assert not servers.running()
    servers.stop()


def test_a_port_that_is_taken_is_named(stack: Stack, tmp_path: Path) -> None:
    said = _command("up", stack.ports, tmp_path, expect=1)
    assert "STACK_OTLP_GRPC_PORT" in said
    assert stack.healthy()


def test_without_docker_and_go_the_commands_say_so(tmp_path: Path) -> None:
    done = [
        subprocess.run(
            [sys.executable, "-m", "scripts.stack", *arguments, "build"],
            cwd=ROOT,
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        for arguments in ([], ["--optional"])
    ]
    assert [each.returncode for each in done] == [1, 0]
    printed = [" ".join(each.stdout.split()) for each in done]  # lines are wrapped
    assert all("no docker command" in each and "no go command" in each for each in printed)


def test_two_builders_wait_for_each_other(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from scripts.stack_build import locked\nwith locked(Path({str(tmp_path / 'lock')!r})): print('mine')"
    with locked(tmp_path / "lock"):
        second = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
    assert second.communicate(timeout=30)[0] == "mine\n"


def test_a_binary_moves_when_what_it_is_built_from_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STACK_CACHE", str(tmp_path))
    assert binary("promtool").parent == binary("prometheus").parent
    assert tmp_path in binary("jaeger").parents
    assert missing() == ["collector", "prometheus", "jaeger"]


def test_each_server_accepts_its_configuration(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.stack", "validate"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    if not stack.docker:
        assert done.stdout.count("valid ") == len(SERVERS) + 1  # and the rules


def _home(cache: Path) -> Path:
    return cache / "cache" / "stack"


def _command(name: str, ports: Ports, folder: Path, expect: int = 0) -> str:
    """Run a command with a cache of its own that shares the servers' binaries."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    if not (cache / "servers").exists():
        (cache / "servers").symlink_to(binary("jaeger").parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.stack", name],
        cwd=ROOT,
        env={**os.environ, **ports.variables(), "STACK_CACHE": str(cache), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout
