"""Validations that ranks add up, and sharpness on several ranks."""

import json
import os
from typing import Any

import pytest

from tests import preloaded
from tests.support import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what two processes found, in the order of ranks."""
    folder = tmp_path_factory.mktemp("measuring")
    processes = []
    for rank in range(2):
        environ = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank)}
        with (folder / f"rank{rank}.log").open("wb") as log:
            command = ["-m", "tests.distributed.measuring", str(folder)]
            processes.append(preloaded.start(command, cwd=folder, env=environ, output=log))
    try:
        statuses = [process.wait(120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert statuses == [0, 0], "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_ranks_add_up_a_validation_in_one_collective(found: list[dict[str, Any]]) -> None:
    for each in (rank["counted"] for rank in found):
        assert each["accuracy"] == pytest.approx(4 / 6)
        assert each["loss"] == pytest.approx((3 * 1 + 3 * 2) / 6)
        assert each["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
        assert each["ignored"] == 1
        assert each["calls"] == 1
        assert each["alone"] == 3
        assert each["lonely"] == 0.5


def test_ranks_with_batches_of_their_own_measure_a_replicated_model_by_themselves(found: list[dict[str, Any]]) -> None:
    one, other = (rank["replicated"] for rank in found)
    assert one["values"].keys() == other["values"].keys() == {"critical", "average_case"}
    assert one["evaluations"] != other["evaluations"]
    assert one["moved"]
    assert one["weight"] == other["weight"]


def test_a_sharded_model_is_absent(found: list[dict[str, Any]]) -> None:
    assert [rank["sharded"]["measured"] for rank in found] == [False, False]
