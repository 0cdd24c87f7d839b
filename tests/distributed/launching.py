"""Starts processes that train together, and reads what they found."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests import preloaded
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_ID = "together"
"""Of all runs; each has a folder of its own."""


def launch(folder: Path, ranks: int, *, timeout: float = 280) -> None:
    """Run every scenario for a number of ranks; each rank writes what it found to the folder.

    Processes meet in a file, not at a port, and talk over the loopback interface.
    """
    folder.mkdir(parents=True)
    processes = [_start(folder, rank, ranks) for rank in range(ranks)]
    try:
        statuses = [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert statuses == [0] * ranks, "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))


def _start(folder: Path, rank: int, ranks: int) -> preloaded.Process:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NISSA_", "OTEL_"))},
        "PYTHONPATH": os.pathsep.join(filter(None, (os.fspath(ROOT), os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "NISSA_RUN_ID": RUN_ID,
    }
    with (folder / f"rank{rank}.log").open("wb") as log:
        return preloaded.start(["-m", "tests.distributed.worker", folder], cwd=folder, env=environ, output=log)


def run_ranks(module: str, function: str, folder: Path, *, ranks: int = 2, timeout: float = 200) -> None:
    """Call ``function(rank, folder)`` of a module in a process per rank, as `torch.multiprocessing.spawn` does.

    The processes are forked from one that has imported torch, which spawned ones do again.
    """
    code = f"import sys; from {module} import {function}; {function}(int(sys.argv[1]), sys.argv[2])"
    environ = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    started = [preloaded.start(["-c", code, str(rank), folder], env=environ) for rank in range(ranks)]
    try:
        # A rank that fails leaves the others waiting; its output says more than theirs.
        ended = [(process.communicate(timeout), process.wait(timeout)) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [status for _, status in ended] == [0] * ranks, "\n".join(err for (_, err), _ in ended)


def findings(folder: Path) -> "dict[str, list[Mapping[str, Any]]]":
    """Return by scenario what each rank found, in the order of ranks."""
    # They are our own files; what tensors are keyed by is no tensor.
    by_rank = [torch.load(path, weights_only=False) for path in sorted(folder.glob("*.pt"))]
    return {scenario: [found[scenario] for found in by_rank] for scenario in by_rank[0]}
