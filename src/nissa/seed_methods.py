"""The seeds of one environment: where they germinate, and the handles that users hold."""

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.features import seed_features
from nissa.errors import ConfigurationError
from nissa.events import EventType
from nissa.seeds.checkpoint import restore, state_dict
from nissa.seeds.seed import Seed
from nissa.seeds.slots import SeedRecord

if TYPE_CHECKING:
    import torch

    from nissa.events import TelemetryEvent
    from nissa.session import Session


class EnvironmentSeeds:
    """Where an environment's seeds are.

    Attributes:
        env_id: The environment's id as text, None for the run's own.
    """

    def __init__(self, session: "Session", env_id: str | None) -> None:
        self.env_id = env_id
        self._session = session
        self._epoch: int | None = None

    def germinate(
        self,
        seed_id: str,
        *,
        blueprint: str | None = None,
        slot: str | None = None,
        module: "torch.nn.Module | None" = None,
        parameters: int | None = None,
    ) -> Seed:
        """Begin a seed's life.

        Args:
            seed_id: Unique among the live seeds of the environment.
            blueprint: What the seed is built from.
            slot: Where in the host it is grafted.
            module: The seed itself; its parameters are counted, and their gradients are compared with those of the
                host. It is not kept alive.
            parameters: How many parameters it has, where there is no module.

        Raises:
            ConfigurationError: ``module`` is no module.
            TransitionError: A seed of that id is alive, and the run is strict.
        """
        data = {"blueprint_id": blueprint, "parameters": parameters if module is None else _count(module)}
        self._grow(self._send(EventType.SEED_GERMINATED, seed_id=str(seed_id), slot_id=slot, data=data), module)
        return self._seed(str(seed_id))

    def resume_seed(self, state: Mapping[str, Any], *, module: "torch.nn.Module | None" = None) -> Seed:
        """Continue the life that ``Seed.state_dict()`` saved, in the same trace, in this process.

        Args:
            state: What ``state_dict()`` returned.
            module: The seed itself, whose gradients are then compared with those of the host. It is not kept alive.

        Raises:
            ConfigurationError: The state is not what ``state_dict()`` returned.
            TransitionError: A seed of that id is alive, and the run is strict.
        """
        record = restore(dict(state))
        if record.env_id != self.env_id:
            raise ConfigurationError(
                f"The seed {record.seed_id!r} lived in environment {record.env_id!r}, not in {self.env_id!r}; "
                "resume it with run.environment(...).resume_seed(state)."
            )
        data = {"seed_state": dict(state)}
        self._grow(
            self._send(EventType.CHECKPOINT_LOADED, seed_id=record.seed_id, slot_id=record.slot_id, data=data), module
        )
        return self._seed(record.seed_id)

    @property
    def seeds(self) -> list[Seed]:
        """The environment's seeds, in the order in which they germinated."""
        return [self._seed(record.seed_id) for record in self._session.table.slots.of(self.env_id)]

    def _grow(self, events: "list[TelemetryEvent]", module: "torch.nn.Module | None") -> None:
        """Give a life that has just begun its module."""
        if module is None or not events or events[-1].refused is not None or events[-1].seed_id is None:
            return
        record = self._session.table.slots.get((self.env_id, events[-1].seed_id))
        if record is not None:
            record.module = weakref.ref(module)

    def _seed(self, seed_id: str) -> Seed:
        session = self._session
        # A seed that the table lacks, because telemetry failed, still needs a handle that training can call.
        record = session.table.slots.get((self.env_id, seed_id)) or SeedRecord(
            seed_id=seed_id,
            env_id=self.env_id,
            slot_id=None,
            blueprint_id=None,
            parameters=None,
            germinated_at=session.now(),
            stage_since=session.now(),
        )
        return Seed(record, session.table.slots, session.deliver, clock=session.now, features=self._features_of)

    def _features_of(self, record: SeedRecord) -> tuple[float, ...]:
        """Return the vector of a seed; where telemetry fails, that of one of which nothing was measured."""
        session, seed = self._session, record.snapshot()
        with session.error_boundary.guard("seed features"):
            latest = session.step_processor.latest(self.env_id)
            ratio = None if seed.slot_id is None else latest.ratios().get(seed.slot_id)
            return session.tracker(self.env_id).seed_features(seed, health=latest.seed(seed.slot_id), ratio=ratio)
        return seed_features(seed)

    def _send(self, event_type: EventType, **fields: Any) -> "list[TelemetryEvent]":
        return self._session.send(event_type, env_id=self.env_id, epoch=self._epoch, **fields)


def open_states(session: "Session") -> list[dict[str, Any]]:
    """Return the states of all seeds whose fate is open, for a checkpoint."""
    return [state_dict(record) for record in session.table.slots.alive()]


def _count(module: object) -> int:
    parameters = getattr(module, "parameters", None)
    if not callable(parameters):
        raise ConfigurationError(f"germinate(module=...) needs a torch.nn.Module, not a {type(module).__name__}.")
    return sum(parameter.numel() for parameter in parameters())
