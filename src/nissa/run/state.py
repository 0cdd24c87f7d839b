"""State of a run as plain data, for a checkpoint, and the run that continues from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nissa.distributed.trace_context import TraceContext
from nissa.errors import ConfigurationError
from nissa.events import SpanIds
from nissa.seeds.checkpoint import restore, state_dict

if TYPE_CHECKING:
    from nissa.run.runtime import Runtime

STATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """Run that another process has begun.

    Args:
        run_id: Id of the run.
        attempt: Number of processes that have run it before this one.
        trace: Trace context that the run was started in; None without one.
        steps: Number of completed steps, by environment and watch.
        epochs: Number and span of the epoch in which the state was saved, by environment.
        seeds: States of the open seeds, as of ``Seed.state_dict()``.
    """

    run_id: str
    attempt: int
    trace: TraceContext | None
    steps: dict[tuple[str | None, str | None], int]
    epochs: dict[str | None, tuple[int, SpanIds]]
    seeds: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, state: object) -> "ResumedRun":
        """Return the run that ``Run.state_dict()`` describes.

        Raises:
            ConfigurationError: The state does not come from ``Run.state_dict()``, or is damaged.
        """
        if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION or "run_id" not in state:
            raise ConfigurationError(
                f"start(resume=...) takes what run.state_dict() returned (version {STATE_VERSION}), unchanged; this is not one."
            )
        try:
            return cls(
                run_id=str(state["run_id"]),
                attempt=int(state["attempt"]) + 1,
                trace=None if state["trace"] is None else TraceContext.parse(*state["trace"]),
                steps={(each["env_id"], each["name"]): int(each["steps"]) for each in state["steps"]},
                epochs={each["env_id"]: (int(each["number"]), _ids(each)) for each in state["epochs"]},
                seeds=tuple(map(_checked, state["seeds"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"The state of the run is incomplete or damaged: {error!r}.") from error


def run_state(runtime: "Runtime", run_id: str, *, attempt: int, trace: TraceContext | None) -> dict[str, Any]:
    """Return the state of a run as numbers, text, lists and dicts, which JSON and ``torch.save`` can store.

    Args:
        runtime: Components of the run.
        run_id: Id of the run.
        attempt: Number of processes that have run it before this one.
        trace: Trace context that the run was started in.
    """
    epochs = runtime.resumed_epochs | runtime.open_epochs
    return {
        "version": STATE_VERSION,
        "run_id": run_id,
        "attempt": attempt,
        "trace": None if trace is None else [str(trace), trace.state],
        "steps": [
            {"env_id": env_id, "name": name, "steps": steps}
            for (env_id, name), steps in runtime.watches.step_counts().items()
        ],
        "epochs": [
            {"env_id": env_id, "number": number, "trace_id": ids.trace_hex, "span_id": f"{ids.span_id:016x}"}
            for env_id, (number, ids) in epochs.items()
        ],
        "seeds": seed_states(runtime),
    }


def seed_states(runtime: "Runtime") -> list[dict[str, Any]]:
    """Return the state of every unfinished seed."""
    return [state_dict(record) for record in runtime.table.slots.alive()]


def _checked(seed: Mapping[str, Any]) -> Mapping[str, Any]:
    restore(seed)  # raises for a state that is damaged, before anything has changed
    return seed


def _ids(epoch: Mapping[str, str]) -> SpanIds:
    return SpanIds(int(epoch["trace_id"], 16), int(epoch["span_id"], 16))
