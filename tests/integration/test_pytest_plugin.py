"""The pytest plugin, as the tests of a user's project load it."""

import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = """
import pytest
import nissa

def test_leaves_it_open():
    nissa.start(run_id="left", console__enabled=False)

def test_may_start_one():
    with nissa.start(run_id="own", console__enabled=False):
        pass

@pytest.fixture(scope="module")
def run():
    with nissa.start(run_id="of-the-fixture", console__enabled=False) as run:
        yield run

def test_uses_it(run):
    assert not run.closed

def test_uses_it_again(run):
    assert nissa.current_run() is run
    assert not run.closed

@pytest.fixture
def resetting():
    yield
    nissa.reset_hub()

def test_is_cleaned_up_by_a_fixture(run, resetting):
    nissa.start(run_id="cleaned", replace=True, console__enabled=False)

def test_fails_with_an_open_run():
    nissa.start(run_id="failed", console__enabled=False)
    assert False
"""


UNUSED = """
import sys

def test_needs_nothing_of_it():
    for name in ("torch", "opentelemetry", "pydantic", "numpy"):
        assert name not in sys.modules, name

def test_needs_a_clock(nissa_clock):
    nissa_clock.advance(2)
    for name in ("torch", "opentelemetry", "pydantic"):
        assert name not in sys.modules, name
"""

USED = """
import nissa

def test_a_program(nissa_telemetry, nissa_clock):
    with nissa.start(service_name="digits") as run:
        seed = run.germinate("s", blueprint="conv")
        nissa_clock.advance(3)
        seed.cull(reason="no gain")
    assert nissa_telemetry.spans.named("seed").one().duration == 3
    assert nissa_telemetry.events.of("SEED_CULLED").one().data == {"reason": "no gain"}

def test_a_function_that_is_given_a_run(nissa_run, nissa_telemetry):
    nissa_run.log(reward=0.5)
    assert nissa_telemetry.metrics.last("nissa.scalar", {"nissa.scalar.name": "reward"}) == 0.5

def test_the_run_that_a_program_leaves_open_is_ended(nissa_telemetry):
    nissa.start()

def test_a_wrong_expectation(nissa_telemetry):
    with nissa.start() as run:
        run.germinate("s", blueprint="conv")
    nissa_telemetry.spans.named("seed.blending").one()

def test_the_memory_of_a_hub(nissa_memory):
    nissa.get_hub().emit({"event_type": "MINE"})
    nissa.get_hub().flush()
    assert [event.event_type for event in nissa_memory.events] == ["MINE"]
"""


def outcome(tests: str, folder: Path) -> str:
    """Return what pytest prints about the tests of a project that has Nissa installed and no configuration of its own."""
    (folder / "test_it.py").write_text(textwrap.dedent(tests))
    # An interpreter of its own: pytest finds the plugin by its entry point, and takes over the standard output.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "test_it.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=250)
    return done.stdout + done.stderr


def test_a_project_that_does_not_use_the_fixtures_imports_neither_torch_nor_opentelemetry(tmp_path: Path) -> None:
    assert "2 passed" in (out := outcome(UNUSED, tmp_path)), out


def test_the_fixtures_serve_a_project_without_a_conftest(tmp_path: Path) -> None:
    out = outcome(USED, tmp_path)
    assert "1 failed, 4 passed" in out, out
    assert "AssertionError: Expected one span named 'seed.blending', found none." in out
    assert "Recorded names: seed.started, seed.germinated.started, seed.germinated, seed." in out
    assert "has left the run" not in out
    assert not (tmp_path / "nissa-runs").exists()


def test_a_run_that_a_test_left_open_is_ended_with_a_warning_that_names_the_test(tmp_path: Path) -> None:
    out = outcome(TESTS, tmp_path)
    assert "1 failed, 5 passed" in out, out
    assert out.count("has left the run") == 2
    assert "test_it.py::test_leaves_it_open has left the run left open" in out
    assert "test_it.py::test_fails_with_an_open_run has left the run failed open" in out
