"""Identity with which a run starts: id, rank and trace context, on which all ranks agree."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from time import strftime

from nissa.distributed.rank import Rank, RunIdentity, common_run_id
from nissa.distributed.trace_context import TraceContext, common_trace_context
from nissa.run.state import ResumedRun


@dataclass(frozen=True, slots=True)
class RunStart:
    """Identity with which a run starts.

    Args:
        identity: Id of the run.
        rank: Rank of this process.
        trace: Trace context that the run was started in, equal on all ranks; None without one.
        resumed: State of another process that the run continues; None for a new run.
    """

    identity: RunIdentity
    rank: Rank
    trace: TraceContext | None = None
    resumed: ResumedRun | None = None

    @classmethod
    def agree(cls, named: str | None, resumed: ResumedRun | None, environ: Mapping[str, str]) -> "RunStart":
        """Return the identity of a run that starts now; with a process group, the ranks agree on it.

        Args:
            named: Id that was chosen for the run; None for a new one.
            resumed: State of another process that the run continues.
            environ: Environment variables.
        """
        identity = RunIdentity(named) if named else common_run_id(_new_run_id())
        own = TraceContext.from_environment(environ) or (resumed.trace if resumed else None)
        trace = common_trace_context(identity.run_id, own)
        return cls(identity, Rank.discover(environ), trace, resumed)


def _new_run_id() -> str:
    return f"{strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
