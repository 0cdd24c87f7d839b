"""One stack for the whole test run, shared by its workers."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.stack import Stack, unavailable
from scripts.stack_build import locked
from scripts.stack_settings import Ports
from tests.support import shared_folder

FAST = {"COLLECTOR_SPAN_METRICS_INTERVAL": "500ms", "COLLECTOR_OWN_METRICS_INTERVAL_MS": "500"}
"""Settings that let a test see soon what people may see later."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(1800))  # the first one may have to build the servers


@pytest.fixture(scope="session")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    return shared_folder(tmp_path_factory, "stack")


@pytest.fixture(scope="session")
def stack(stack_folder: Path, worker_id: str) -> Iterator[Stack]:
    """Yield the running servers; the first worker starts them and the last one ends them."""
    if reason := unavailable():
        pytest.skip(f"no stack: {reason}")
    with locked(stack_folder / "lock"):
        shared = _join(stack_folder, worker_id)
    yield shared
    with locked(stack_folder / "lock"):
        _leave(shared, stack_folder, worker_id)


@pytest.fixture
def own_stack(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """Yield servers that nobody else uses; the shared ones have seen to it that they are built."""
    own = Stack(tmp_path / "own", docker=stack.docker)
    own.start()
    yield own
    own.clean()


def _join(folder: Path, worker: str) -> Stack:
    users, ports = folder / "users", folder / "ports.json"
    if not list(users.glob("*")):
        first = Stack(folder, settings=FAST)
        first.start()
        ports.write_text(json.dumps(asdict(first.ports)))
        shared = first
    else:
        shared = Stack(folder, Ports(**json.loads(ports.read_text())), settings=FAST)
    users.mkdir(exist_ok=True)
    (users / worker).touch()
    return shared


def _leave(shared: Stack, folder: Path, worker: str) -> None:
    (folder / "users" / worker).unlink()
    if not list((folder / "users").glob("*")):
        shared.stop()
