"""A disk that is full for a while, and a folder that disappears."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from scripts.stack import Stack
from tests.stack.faults.conftest import GRPC, Keep, settings
from tests.stack.faults.evidence import compare
from tests.stack.faults.table import Fault
from tests.stack.faults.trainee import DOORS, START, training
from tests.stack.training import service_name

SECONDS = 4.0
EACH_DOOR = pytest.mark.parametrize(
    "door", [pytest.param(door, marks=() if door == START else pytest.mark.full) for door in DOORS]
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a file system of its own, of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "nissa-test", folder], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a file system cannot be mounted: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@EACH_DOOR
def test_the_disk_is_full_for_a_while(stack: Stack, small_disk: Path, keep: Keep, door: str) -> None:
    service = service_name("disk")
    with training(door, small_disk, settings(stack, GRPC, service)) as trainee:
        trainee.await_lives(3)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            _fill(filler)
        sleep(SECONDS)
        trainee.await_lives(1)
        filler.unlink()
        trainee.await_lives(5)
        trainee.end()
        assert trainee.wait() == 0, "".join(trainee.errors)
        said = "".join(trainee.errors)
        assert "cannot be written" in said
        assert "Traceback" not in said
        keep(Fault.DISK_FULL, door, compare(stack, service, trainee))


@EACH_DOOR
def test_the_folder_of_the_run_is_removed(stack: Stack, tmp_path: Path, keep: Keep, door: str) -> None:
    service = service_name("folder")
    with training(door, tmp_path, settings(stack, GRPC, service)) as trainee:
        trainee.await_lives(10)
        shutil.rmtree(tmp_path / "nissa-runs")
        trainee.await_lives(15)
        trainee.end()
        assert trainee.wait() == 0, "".join(trainee.errors)
        keep(Fault.FOLDER_REMOVED, door, compare(stack, service, trainee))
