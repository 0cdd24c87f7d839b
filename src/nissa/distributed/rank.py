"""Rank and run id of this process: from the process group if there is one, else from the variables of its launcher."""

import itertools
import logging
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
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


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Id of a run, and the place of the run among those that this process has started in its process group.

    Args:
        run_id: The id, common to all ranks.
        number: Number of earlier runs with a common id; None if the ranks did not agree on the id.
    """

    run_id: str
    number: int | None = None

    def end(self, timeout: float) -> None:
        """Record in the store that the run has ended on this rank; see `common_run_id`. Takes at most ``timeout`` seconds."""
        if self.number is None or _process_group() is None:
            return
        # On a thread of its own: the process that holds the store may have ended, or not answer.
        thread = threading.Thread(
            target=first_proposal, args=(f"ended/{self.number}", self.run_id), name="nissa-agreement", daemon=True
        )
        with suppress(RuntimeError):  # an interpreter that is shutting down cannot start threads
            thread.start()
            thread.join(timeout)


def common_run_id(proposal: str) -> RunIdentity:
    """Return one run id for all ranks of the process group: the proposal of the rank that is first to start a run.

    The ranks agree through the store of the process group, and none waits for another. Without a process group, the
    proposal is returned. The n-th run of a rank has the id of the n-th run of the others. A rank that starts more runs than
    others therefore gets different ids from then on. This is logged by the rank that joins a run that has already ended.
    """
    if _process_group() is None:
        return RunIdentity(proposal)
    number = next(_runs)  # of this process group: a run that one rank started before it does not count
    agreed = first_proposal(f"run_id/{number}", proposal)
    if agreed is None:
        _logger.warning(
            "The ranks of this run may have different run ids; pass the same run_id= or NISSA_RUN_ID to all."
        )
        return RunIdentity(proposal)
    if agreed != proposal and first_proposal(f"ended/{number}") is not None:
        _logger.warning(
            "This rank joins the run %s, which has already ended on another rank: the ranks start different numbers of "
            "runs, so that their run ids differ. Start each run on all ranks, or pass the same run_id= to all.",
            agreed,
        )
    return RunIdentity(agreed, number)


def first_proposal(key: str, proposal: str | None = None) -> str | None:
    """Return the first proposal that a rank has made under a key, through the store of the process group.

    Args:
        key: Name of the decision.
        proposal: Proposal of this rank; None only reads.

    Returns:
        None without a process group, without any proposal, and if the store failed, which is logged.
    """
    if _process_group() is None:
        return None
    try:
        from nissa.torch_compat import default_store  # noqa: PLC0415 - without a process group torch is not needed

        store = default_store()
        if proposal is None and not store.check([f"nissa/{key}"]):
            return None
        agreed: bytes = (
            store.get(f"nissa/{key}") if proposal is None else store.compare_set(f"nissa/{key}", "", proposal)
        )
    except Exception as error:  # noqa: BLE001 - a store of another kind, or one that is gone, costs the agreement only
        _logger.warning("The ranks cannot agree on %s: the process group's store failed (%s).", key, error)
        return None
    return agreed.decode()


def _process_group() -> Any:
    # A process that has not imported torch.distributed has no process group, and importing it takes time.
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None
