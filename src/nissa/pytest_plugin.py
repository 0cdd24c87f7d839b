"""pytest plugin: fixtures for tests of training code. pytest loads it by itself; see `nissa.testing`.

Fixtures: ``nissa_telemetry`` keeps the telemetry of a test in memory, ``nissa_run`` is a run whose telemetry that is,
``nissa_clock`` is a `FakeClock`, and ``nissa_memory`` is a `MemoryBackend` on a fresh hub.

A run that a test has started and left open is ended after the test, with a warning, so that the next test can start one.

This module imports neither torch nor OpenTelemetry, because it is loaded in every run of pytest.
"""

import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from nissa.backends.memory import MemoryBackend
    from nissa.run.run import Run
    from nissa.testing import FakeClock, Telemetry

_LEFT_OPEN: "Final[pytest.StashKey[Run]]" = pytest.StashKey()
"""Run that was started by the body of a test and was still active at its end."""


@pytest.fixture
def nissa_clock() -> "FakeClock":
    """Clock that moves only by ``advance``. With ``nissa_telemetry`` or ``nissa_run``, it is the clock of the runs."""
    from nissa.testing import FakeClock  # noqa: PLC0415 - only for tests that use it

    return FakeClock()


@pytest.fixture
def nissa_telemetry(request: pytest.FixtureRequest) -> "Iterator[Telemetry]":
    """Telemetry of every run that the test starts, in memory: no files, no network; see `nissa.testing.capture`.

    The hub is fresh. If the test uses ``nissa_clock`` too, that is the clock of its runs.
    """
    import nissa  # noqa: PLC0415
    from nissa.testing import capture  # noqa: PLC0415

    clock = {"clock": request.getfixturevalue("nissa_clock")} if "nissa_clock" in request.fixturenames else {}
    nissa.reset_hub()
    with capture(**clock) as telemetry:
        yield telemetry
    nissa.reset_hub()


@pytest.fixture
def nissa_run(nissa_telemetry: "Telemetry") -> "Iterator[Run]":  # noqa: ARG001 - the destination of the run
    """Run that measures every step (profile ``diagnostic``), for functions that are given one. Its telemetry is ``nissa_telemetry``."""
    import nissa  # noqa: PLC0415

    with nissa.start("diagnostic", console__enabled=False) as run:
        yield run


@pytest.fixture
def nissa_memory() -> "Iterator[MemoryBackend]":
    """Backend that stores everything, on a fresh hub; call ``nissa.get_hub().flush()`` before reading it."""
    import nissa  # noqa: PLC0415

    backend = nissa.MemoryBackend()
    nissa.reset_hub().add_backend(backend)
    yield backend
    nissa.reset_hub()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> "Generator[None, object, object]":
    """Find the run that the body of a test leaves open. One that a fixture has started belongs to the fixture."""
    before = _active_run()
    try:
        return (yield)
    finally:
        if (run := _active_run()) is not None and run is not before:
            item.stash[_LEFT_OPEN] = run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> "Generator[None, object, object]":
    """End the run that a test has left open, unless a fixture has ended it."""
    try:
        return (yield)
    finally:
        run = item.stash.get(_LEFT_OPEN, None)
        if run is not None and not run.closed:
            run.close()
            item.warn(
                pytest.PytestWarning(
                    f"{item.nodeid} has left the run {run.run_id} open; it is ended now. Start it with "
                    "`with nissa.start(...) as run:`, or call run.close() in the test."
                )
            )


def _active_run() -> "Run | None":
    # A test that has not started a run must not wait for the import of torch.
    return sys.modules["nissa"].current_run() if "nissa.run.run" in sys.modules else None
