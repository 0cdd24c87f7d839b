"""Rank of this process: from the process group if there is one, else from the variables of its launcher."""

import itertools
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_logger = logging.getLogger("nissa")

_LAUNCHERS: Final = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),  # torchrun
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
)
"""Variables of rank, local rank and world size, by launcher. Those of one launcher are never mixed with another's."""

_runs = itertools.count()


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank and world size of a process; all None in a single process that was started without a launcher."""

    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Rank":
        """Read the variables of the first launcher that set a rank; a value that is not a number is ignored."""
        for names in _LAUNCHERS:
            found = [int(environ[name]) if environ.get(name, "").isdigit() else None for name in names]
            if found[0] is not None:
                return cls(*found)
        return cls()

    @classmethod
    def discover(cls, environ: Mapping[str, str]) -> "Rank":
        """Return the rank in the default process group, or that of the environment if no group is initialised.

        Processes that a script starts itself (``torch.multiprocessing.spawn``) have no variables of their own: they
        inherit those of their parent, or none. A contradiction between the two is logged.
        """
        launched = cls.from_environment(environ)
        if (distributed := _process_group()) is None:
            return launched
        rank, size = distributed.get_rank(), distributed.get_world_size()
        if launched.rank in {None, rank} and launched.world_size in {None, size}:
            return cls(rank, launched.local_rank, size)
        _logger.warning(
            "This process is rank %d of %d in the process group, but rank %s of %s in the environment; the former is used. "
            "If that is wrong, call nissa.start() before init_process_group().",
            rank,
            size,
            launched.rank,
            launched.world_size,
        )
        return cls(rank, None, size)

    @property
    def suffix(self) -> str:
        """Suffix for the names of this rank's files; empty in a run with one rank."""
        return f"-rank{self.rank}" if self.rank is not None and (self.world_size or 1) > 1 else ""


def common_run_id(proposal: str) -> str:
    """Return one run id for all ranks of the process group: the proposal of the rank that is first to start a run.

    The ranks agree through the store of the process group, and none waits for another. Without a process group, the
    proposal is returned.
    """
    if _process_group() is None:
        return proposal
    number = next(_runs)  # of this process group: a run that one rank started before it does not count
    try:
        from torch.distributed.distributed_c10d import _get_default_store  # noqa: PLC0415 - no public name

        store: Any = _get_default_store()
        agreed: bytes = store.compare_set(f"nissa/run_id/{number}", "", proposal)
    except Exception as error:  # noqa: BLE001 - a store of another kind, or one that is gone, costs the common id only
        _logger.warning("The ranks of this run have different run ids: the process group's store failed (%s).", error)
        return proposal
    return agreed.decode()


def _process_group() -> Any:
    # A process that has not imported torch.distributed has no process group, and importing it takes time.
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None
