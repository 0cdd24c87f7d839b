"""Runs that tests leave open."""

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


def test_a_run_that_a_test_left_open_is_ended_with_a_warning_that_names_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    # An interpreter of its own: pytest finds the plugin by its entry point, and takes over the standard output.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250)
    out = done.stdout
    assert "1 failed, 5 passed" in out, out + done.stderr
    assert out.count("has left the run") == 2
    assert "test_it.py::test_leaves_it_open has left the run left open" in out
    assert "test_it.py::test_fails_with_an_open_run has left the run failed open" in out
