"""Contracts about several ranks."""

from typing import TYPE_CHECKING, Final

from nissa.diagnostics.contracts.replica_divergence import ReplicaDivergence
from nissa.diagnostics.contracts.same_data_on_ranks import SameDataOnRanks

if TYPE_CHECKING:
    from nissa.diagnostics.contracts.contract import Contract

REPLICA_CONTRACTS: "Final[tuple[type[Contract], ...]]" = (ReplicaDivergence, SameDataOnRanks)
"""Contracts about several ranks, worst first. The setting ``replicas.enabled`` switches them on, not that of the others."""
