"""Rank of this process, from the environment variables of its launcher (torchrun, Slurm, MPI)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_NAMES: Final = {
    "rank": ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"),
    "local_rank": ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "world_size": ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"),
}


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank and world size of a process; all None in a single process that was started without a launcher."""

    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Rank":
        """Read the launcher's variables; a value that is not a number is ignored."""
        return cls(**{field: _first_number(environ, names) for field, names in _NAMES.items()})

    @property
    def suffix(self) -> str:
        """Suffix for the names of this rank's files; empty in a run with one rank."""
        return f"-rank{self.rank}" if self.rank is not None and (self.world_size or 1) > 1 else ""


def _first_number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environ[name]) for name in names if environ.get(name, "").isdigit()), None)
