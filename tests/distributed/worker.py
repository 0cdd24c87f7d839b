"""One of several processes that train together: ``python -m tests.distributed.worker FOLDER``."""

import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
from torch import distributed

import nissa
from tests.distributed.budgets import BUDGETS
from tests.distributed.runs import RUNS
from tests.distributed.scenarios import BY_RANKS

RANKS_OF_RUNS: Final = 2


def main(folder: Path) -> None:
    """Play every scenario that there is for this number of ranks, and write what was found."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=120),
    )
    found = {}
    for scenario in (*BY_RANKS[ranks], *((*RUNS, *BUDGETS) if ranks == RANKS_OF_RUNS else ())):
        try:
            found[scenario.__name__] = scenario()
        except Exception:  # noqa: BLE001 - the test that asks for it fails with it
            found[scenario.__name__] = {"error": traceback.format_exc()}
        finally:
            nissa.reset_hub()
    torch.save(found, folder / f"rank{rank}.pt")
    # Nobody leaves while another still talks to it.
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
