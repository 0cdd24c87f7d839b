"""Comparison of the weights of a run's watches between ranks: probes of watches, the thread, and its results."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Literal

from nissa.distributed.replica_groups import group_of
from nissa.distributed.replica_thread import Channel, ReplicaThread
from nissa.errors import WatchError
from nissa.gradients.replica_probe import ReplicaProbe
from nissa.gradients.selection import Selection
from nissa.hub.measurements import ReplicasCompared

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

    from nissa.config import TelemetryConfig
    from nissa.distributed.replica_groups import Cohort, Replicas
    from nissa.distributed.replica_reports import Comparison
    from nissa.gradients.forward_probe import ForwardProbe
    from nissa.hub.error_boundary import ErrorBoundary

_COPIED: Final = (
    "step", "ranks", "outcome", "leads", "skew", "differing", "layers", "cause", "equal_at", "presumed", "evidence", "same_data",
    "same_steps",
)  # fmt: skip

_END_SECONDS: Final = 1.0
"""Longest time that the end of a run waits for the last comparisons."""

_READ_SECONDS: Final = 0.2
"""Longest time that it then waits until they are judged."""

_POLL_SECONDS: Final = 0.002


class RunReplicas:
    """Comparisons of a run.

    Args:
        run_id: Id of the run, the same on all ranks.
        config: Settings of the run.
        error_boundary: Contains errors of reading weights.
    """

    def __init__(self, run_id: str, config: "TelemetryConfig", error_boundary: "ErrorBoundary") -> None:
        self._run_id = run_id
        self._config = config.replicas
        gradients = config.gradients
        self._with_norms = gradients.weight_norms or gradients.update_ratios
        self._error_boundary = error_boundary
        self._selection = Selection(config.replicas.layers)
        self._thread = ReplicaThread()
        # The thread appends, and the worker removes; both are atomic.
        self._results: deque[ReplicasCompared] = deque()
        self._wake: Callable[[], None] = lambda: None

    def attach(self, wake: Callable[[], None]) -> None:
        """Set the callback that wakes the polling worker."""
        self._wake = wake

    def probe(
        self,
        env_id: str | None,
        name: str | None,
        model: "torch.nn.Module",
        optimizers: tuple[Any, ...],
        chosen: "Replicas",
        forward: "ForwardProbe | None",
    ) -> ReplicaProbe | None:
        """Return the reader of the weights of a watch; None if they are not compared.

        Raises:
            WatchError: The argument ``replicas`` of ``watch()`` is invalid.
        """
        checked = checked_group(chosen)
        if checked is None or not self._config.enabled:
            return None

        def open_channel(cohort: "Cohort") -> Channel:
            return Channel.of(
                f"{self._run_id}/{env_id or ''}/{name or ''}",
                cohort,
                lambda result: self._receive(env_id, name, result),
            )

        return ReplicaProbe(
            model,
            optimizers,
            chosen=checked,
            thread=self._thread,
            open_channel=open_channel,
            selection=self._selection,
            every=self._config.every_n_samples,
            with_norms=self._with_norms,
            forward=forward,
            error_boundary=self._error_boundary,
        )

    @property
    def active(self) -> bool:
        """Whether anything was compared."""
        return self._thread.active

    def drain(self) -> list[ReplicasCompared]:
        """Return the results since the last call."""
        found: list[ReplicasCompared] = []
        with suppress(IndexError):
            while self._results:
                found.append(self._results.popleft())
        return found

    def close(self, deadline: float) -> None:
        """Compare what all ranks have reported, and wait until it is judged; by `time.monotonic`, until a time at the latest."""
        self._thread.close(max(0.0, min(_END_SECONDS, deadline - monotonic())))
        deadline = min(deadline, monotonic() + _READ_SECONDS)
        while self._results and monotonic() < deadline:
            self._wake()
            sleep(_POLL_SECONDS)

    def _receive(self, env_id: str | None, name: str | None, result: "Comparison") -> None:
        copied = {each: getattr(result, each) for each in _COPIED}
        self._results.append(ReplicasCompared(env_id=env_id, model_name=name, time_unix_nano=result.at, **copied))
        self._wake()


def checked_group(replicas: "Replicas") -> "Literal['auto'] | ProcessGroup | None":
    """Return the argument ``replicas`` of ``watch()`` as a process group, ``"auto"`` or None.

    Raises:
        WatchError: It is something else.
    """
    try:
        return group_of(replicas)
    except (TypeError, ValueError) as error:
        raise WatchError(
            f"watch(replicas=...) takes the group of ranks that hold the same weights; it {error}."
        ) from None
