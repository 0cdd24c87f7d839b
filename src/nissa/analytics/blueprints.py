"""Blueprint analytics: outcomes of seeds, by blueprint and by environment."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from nissa.analytics.cost import ComputeCosts, MeasuredCost, measure
from nissa.analytics.lives import MOST_NAMES, SeedLife
from nissa.analytics.prior import BlueprintPrior, prior
from nissa.analytics.records import BlueprintStats, Scoreboard
from nissa.analytics.tables import scoreboard, summary
from nissa.config.analytics import AnalyticsConfig
from nissa.errors import ConfigurationError
from nissa.hub.critical import CriticalSections
from nissa.seeds.lifecycle import SeedTable
from nissa.semconv.cardinality import OTHER

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from nissa.events import SpanIds, TelemetryEvent
    from nissa.seeds.slots import SeedRecord

_logger = logging.getLogger("nissa.analytics")

UNKNOWN: Final = "<unknown>"
"""Blueprint name of seeds without one."""

OWN: Final = "run"
"""Name of the environment without an id: that of the run itself."""

_VERSION: Final = 1


class BlueprintAnalytics:
    """Outcomes of seeds, by blueprint and by environment; that of a run is ``run.analytics``.

    It is also a backend, for a hub without a run. All methods are thread-safe. Accuracies are fractions. Unmeasured values
    are None, and ``n/a`` in tables.

    Args:
        config: Compute multipliers and priors.
        seeds: Returns the live seeds of a run's state table. None is for a hub without a run: its events are applied to a
            state table of this object.
        sections: Critical sections of the hub whose events are counted.
    """

    name = "analytics"

    def __init__(
        self,
        config: AnalyticsConfig | None = None,
        *,
        seeds: "Callable[[], Iterable[SeedRecord]] | None" = None,
        sections: CriticalSections | None = None,
    ) -> None:
        self.config = config or AnalyticsConfig()
        self._sections = sections or CriticalSections()
        # Events arrive from the hub's threads, while users read from theirs.
        self._lock = self._sections.lock()
        self._table = SeedTable(lenient=True)
        self._seeds = seeds or self._table.slots.alive
        self._costs = ComputeCosts(self.config.compute_multipliers)
        self._stats: dict[str, BlueprintStats] = {}
        self._boards: dict[str, Scoreboard] = {}
        self._baselines: dict[str, Scoreboard] = {}
        self._hosts: dict[str, int] = {}
        # Ids of seeds to omit from the live ones after `reset`: their host was replaced before they ended.
        self._of_earlier_hosts: dict[str, frozenset[SpanIds]] = {}

    # Called by a run.

    def count(self, event: "TelemetryEvent") -> None:
        """Count an event that has passed a state table; ignore it unless it begins or ends a life."""
        life = SeedLife.of(event)
        if life is not None:
            with self._sections, self._lock:
                life.account(self._stats_of(life.blueprint or UNKNOWN), self._board(_env(life.env_id)))

    def log(self, event: "TelemetryEvent") -> None:
        """Log a counted event. Do not call this while holding a lock, since log handlers are foreign code."""
        if not _logger.isEnabledFor(logging.INFO):
            return
        life = SeedLife.of(event)
        if life is not None:
            text, fields = life.log_entry()
            _logger.info(text, extra=fields)

    # Backend interface, called by a hub.

    def emit(self, event: "TelemetryEvent") -> None:
        """Count and log an event. An event that has not passed a run's state table is first applied to the table here."""
        known = event.seed is not None or event.refused is not None
        self._count_and_log([event] if known else self._applied(event))

    def record(self, measurement: object) -> None:
        """Record the accuracy of a validation, which yields the effect of blending; ignore other measurements."""
        accuracy = getattr(measurement, "accuracy", None)
        if accuracy is not None:
            at = int(getattr(measurement, "time_unix_nano", 0))
            with self._sections, self._lock:
                self._table.validated(getattr(measurement, "env_id", None), float(accuracy), at)

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - returns at once
        """Count the ends that only a change of stage has signalled so far."""
        with self._sections, self._lock:
            events = self._table.release()
        self._count_and_log(events)
        return True

    def close(self, timeout: float) -> None:
        """Count the ends that are held back."""
        self.flush(timeout)

    def _applied(self, event: "TelemetryEvent") -> "Sequence[TelemetryEvent]":
        with self._sections, self._lock:
            return self._table.apply(event)

    def _count_and_log(self, events: "Iterable[TelemetryEvent]") -> None:
        for event in events:
            self.count(event)
            self.log(event)

    # Called by users.

    def set_host_parameters(self, count: int, env: str | int | None = None) -> None:
        """Set the parameter count of an environment's host network; ``run.watch`` calls this."""
        with self._sections, self._lock:
            self._hosts[_env(env)] = int(count)

    def measure(
        self,
        blueprint: str,
        module: "torch.nn.Module",
        example: "torch.Tensor",
        *,
        host: "torch.nn.Module",
        host_example: "torch.Tensor",
    ) -> MeasuredCost:
        """Measure and store the compute cost of a blueprint that the configuration does not contain.

        Both networks are copied and run forward once, without gradients. The networks and all random states stay unchanged.

        Args:
            blueprint: Name of the blueprint.
            module: A seed of the blueprint.
            example: Input of the seed.
            host: Network in which the seed is grafted.
            host_example: Input batch of the host, of the batch size that produces ``example``.
        """
        found = measure(module, example, host, host_example)
        with self._sections, self._lock:
            self._costs.measured[blueprint] = found.multiplier
        return found

    def prior(self, blueprint: str) -> BlueprintPrior:
        """Return the expected outcome of the next seed of a blueprint; the configured prior if it was never tried."""
        with self._sections, self._lock:
            return prior(blueprint, self._stats.get(blueprint, BlueprintStats()), self._stats.values(), self.config)

    def multiplier(self, blueprint: str) -> float | None:
        """Return the compute multiplier of a blueprint; None if neither configured nor measured."""
        with self._sections, self._lock:
            return self._costs.of(blueprint)

    def compute_cost(self, env: str | int | None = None) -> float:
        """Return the cost of an environment's network as a multiple of its host: ``1 + sum((multiplier - 1) * count)``.

        Only fossilized seeds count. Blueprints of unknown cost are excluded, and listed in ``snapshot()``.
        """
        with self._sections, self._lock:
            return self._costs.total(self._board(_env(env)).distribution)

    def rent(self, env: str | int | None = None) -> float:
        """Return the compute penalty of an episode: ``config.compute_price`` times the compute cost added in it."""
        distribution = self.episode(env).distribution
        with self._sections, self._lock:
            return self.config.compute_price * (self._costs.total(distribution) - 1)

    def begin_episode(self, env: str | int | None = None) -> None:
        """Set the baseline of `episode` and `rent` to the current state of an environment."""
        key = _env(env)
        with self._sections, self._lock:
            self._baselines[key] = Scoreboard.from_state(self._board(key).state_dict())

    def episode(self, env: str | int | None = None) -> Scoreboard:
        """Return the outcomes of an environment's seeds in the current episode; without one, since the start."""
        key = _env(env)
        with self._sections, self._lock:
            board = Scoreboard.from_state(self._board(key).state_dict())
            board.merge(self._baselines.get(key, Scoreboard()), -1)
        return board

    def reset(self, env: str | int | None = None) -> None:
        """Clear an environment's scoreboard, for a new host. The statistics of blueprints stay.

        Live seeds of the earlier host are no longer listed as live.
        """
        key = _env(env)
        earlier = frozenset(record.ids for record in self._seeds() if _env(record.env_id) == key)
        with self._sections, self._lock:
            self._boards.pop(key, None)
            self._baselines.pop(key, None)
            self._of_earlier_hosts[key] = earlier

    def snapshot(self) -> dict[str, Any]:
        """Return all statistics as JSON-serializable data: ``blueprints`` by name, ``environments`` by id."""
        with self._sections, self._lock:
            blueprints = {name: self._blueprint_summary(name, stats) for name, stats in sorted(self._stats.items())}
            names = sorted(self._boards.keys() | self._hosts.keys())
            return {"blueprints": blueprints, "environments": {name: self._environment_summary(name) for name in names}}

    def summary_table(self) -> "Table":
        """Return a rich table with a row for each blueprint; accuracies are in points."""
        with self._sections, self._lock:
            stats = {name: BlueprintStats.from_state(self._stats[name].state_dict()) for name in sorted(self._stats)}
            costs = {name: self._costs.of(name) for name in stats}
        return summary(stats, costs)  # rich is foreign code, which must not run under the lock

    def scoreboard_table(self, env: str | int | None = None) -> "Table":
        """Return a rich table about one environment."""
        with self._sections, self._lock:
            fields = self._environment_summary(_env(env))
        return scoreboard(_env(env), fields)  # see above

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics as plain data, for a checkpoint or another process. Live seeds are not included."""
        with self._sections, self._lock:
            return {
                "version": _VERSION,
                "blueprints": {name: stats.state_dict() for name, stats in self._stats.items()},
                "environments": {name: board.state_dict() for name, board in self._boards.items()},
                "hosts": dict(self._hosts),
                "multipliers": dict(self._costs.measured),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the statistics by those of a `state_dict`.

        Raises:
            ConfigurationError: The state does not come from `state_dict`.
        """
        stats, boards, hosts, multipliers = _parsed(state)
        with self._sections, self._lock:
            self._stats, self._boards, self._hosts = stats, boards, hosts
            self._costs.measured = multipliers
            self._baselines.clear()

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the `state_dict` of another process. The order of several merges does not matter.

        Environments with the same id are summed. If both processes measured a cost, the larger one is kept.

        Raises:
            ConfigurationError: The state does not come from `state_dict`.
        """
        stats, boards, hosts, multipliers = _parsed(state)
        with self._sections, self._lock:
            for name, each in stats.items():
                self._stats.setdefault(name, BlueprintStats()).merge(each)
            for name, board in boards.items():
                self._board(name).merge(board)
            self._hosts |= {name: max(count, self._hosts.get(name, 0)) for name, count in hosts.items()}
            known = self._costs.measured
            known |= {name: max(value, known.get(name, value)) for name, value in multipliers.items()}

    # Internal.

    def _stats_of(self, blueprint: str) -> BlueprintStats:
        own = blueprint if blueprint in self._stats or len(self._stats) < MOST_NAMES else OTHER
        return self._stats.get(own) or self._stats.setdefault(own, BlueprintStats())

    def _board(self, env: str) -> Scoreboard:
        return self._boards.get(env) or self._boards.setdefault(env, Scoreboard())

    def _live(self, env: str) -> dict[str, str]:
        """Return the blueprint of each live seed of an environment, by seed id."""
        gone = self._of_earlier_hosts.get(env, frozenset())
        live = (record for record in self._seeds() if _env(record.env_id) == env and record.ids not in gone)
        return {record.seed_id: record.blueprint_id or UNKNOWN for record in live}

    def _blueprint_summary(self, name: str, stats: BlueprintStats) -> dict[str, Any]:
        return {
            "germinated": stats.germinated,
            "fossilized": stats.fossilized,
            "culled": stats.culled,
            "fossilization_rate": stats.fossilization_rate,
            "mean_accuracy_delta": stats.accuracy_delta.value,
            "mean_churn": stats.churn.value,
            "mean_blending_delta": stats.blending_delta.value,
            "mean_parameters": stats.parameters.value,
            "compute_multiplier": self._costs.of(name),
            "fossilized_by_slot": dict(stats.fossilized_by_slot),
            "culled_by_slot": dict(stats.culled_by_slot),
            "culled_by_stage": dict(stats.culled_by_stage),
        }

    def _environment_summary(self, env: str) -> dict[str, Any]:
        board, host = self._boards.get(env, Scoreboard()), self._hosts.get(env)
        return {
            "germinated": board.germinated,
            "fossilized": board.fossilized,
            "culled": board.culled,
            "live": self._live(env),
            "distribution": dict(board.distribution),
            "parameters_added": board.parameters_added,
            "host_parameters": host,
            "parameters_share": board.parameters_added / host if host else None,
            "compute_cost": self._costs.total(board.distribution),
            "unknown_cost": self._costs.unknown(board.distribution),
            "mean_fossilize_age_epochs": board.fossilize_age.value,
            "mean_cull_age_epochs": board.cull_age.value,
        }


def _env(env: str | int | None) -> str:
    return OWN if env is None else str(env)


_Parsed = tuple[dict[str, BlueprintStats], dict[str, Scoreboard], dict[str, int], dict[str, float]]


def _parsed(state: Mapping[str, Any]) -> _Parsed:
    try:
        if state["version"] != _VERSION:
            raise ConfigurationError(f"The analytics were saved as version {state['version']!r}, not {_VERSION}.")
        return (
            {str(name): BlueprintStats.from_state(each) for name, each in state["blueprints"].items()},
            {str(name): Scoreboard.from_state(each) for name, each in state["environments"].items()},
            {str(name): int(count) for name, count in state["hosts"].items()},
            {str(name): float(value) for name, value in state["multipliers"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        shown = json.dumps(state, default=str)[:80]
        raise ConfigurationError(f"This is not what BlueprintAnalytics.state_dict() returned: {shown}.") from error
