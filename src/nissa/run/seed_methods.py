"""Seed methods of an environment: germinate or resume a seed, and return its handle."""

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
    from nissa.run.runtime import Runtime


class EnvironmentSeeds:
    """Methods of an environment that create and list its seeds.

    Attributes:
        env_id: The environment's id as text, None for the run's own.
    """

    def __init__(self, runtime: "Runtime", env_id: str | None) -> None:
        self.env_id = env_id
        self._runtime = runtime
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
        """Begin the life of a seed, and return its handle.

        Args:
            seed_id: Unique among the live seeds of the environment.
            blueprint: Name of the blueprint that the seed is built from.
            slot: Place in the host where the seed is grafted.
            module: Module of the seed. Its parameters are counted, and their gradients are compared with those of the
                host. Only a weak reference is kept.
            parameters: Number of parameters; used only without ``module``.

        Raises:
            ConfigurationError: ``module`` is not a ``torch.nn.Module``.
            TransitionError: A seed with this id is alive, and the run is strict.
        """
        data = {"blueprint_id": blueprint, "parameters": parameters if module is None else _count(module)}
        self._grow(self._send(EventType.SEED_GERMINATED, seed_id=str(seed_id), slot_id=slot, data=data), module)
        return self._seed(str(seed_id))

    def resume_seed(self, state: Mapping[str, Any], *, module: "torch.nn.Module | None" = None) -> Seed:
        """Continue the life of a seed saved by ``Seed.state_dict()``, in the same trace.

        Args:
            state: Return value of ``state_dict()``.
            module: Module of the seed; its gradients are compared with those of the host. Only a weak reference is
                kept.

        Raises:
            ConfigurationError: The state does not come from ``state_dict()``, or belongs to another environment.
            TransitionError: A seed with this id is alive, and the run is strict.
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
        """Seeds of the environment, in the order in which they germinated."""
        return [self._seed(record.seed_id) for record in self._runtime.table.slots.of(self.env_id)]

    def _grow(self, events: "list[TelemetryEvent]", module: "torch.nn.Module | None") -> None:
        """Attach the module to the record of a seed whose life has just begun."""
        if module is None or not events or events[-1].refused is not None or events[-1].seed_id is None:
            return
        record = self._runtime.table.slots.get((self.env_id, events[-1].seed_id))
        if record is not None:
            record.module = weakref.ref(module)

    def _seed(self, seed_id: str) -> Seed:
        runtime = self._runtime
        # If telemetry failed, the table has no record. Training still needs a handle with working methods.
        record = runtime.table.slots.get((self.env_id, seed_id)) or SeedRecord(
            seed_id=seed_id,
            env_id=self.env_id,
            slot_id=None,
            blueprint_id=None,
            parameters=None,
            germinated_at=runtime.now(),
            stage_since=runtime.now(),
        )
        return Seed(record, runtime.table.slots, runtime.deliver, clock=runtime.now, features=self._features_of)

    def _features_of(self, record: SeedRecord) -> tuple[float, ...]:
        """Return the feature vector of a seed; on a fault, the vector of a seed without measurements."""
        runtime, seed = self._runtime, record.snapshot()
        with runtime.error_boundary.guard("seed features"):
            latest = runtime.step_processor.latest(self.env_id)
            ratio = None if seed.slot_id is None else latest.ratios().get(seed.slot_id)
            return runtime.tracker(self.env_id).seed_features(seed, health=latest.seed(seed.slot_id), ratio=ratio)
        return seed_features(seed)

    def _send(self, event_type: EventType, **fields: Any) -> "list[TelemetryEvent]":
        return self._runtime.send(event_type, env_id=self.env_id, epoch=self._epoch, **fields)


def open_states(runtime: "Runtime") -> list[dict[str, Any]]:
    """Return the states of all unfinished seeds, for a checkpoint."""
    return [state_dict(record) for record in runtime.table.slots.alive()]


def _count(module: object) -> int:
    parameters = getattr(module, "parameters", None)
    if not callable(parameters):
        raise ConfigurationError(f"germinate(module=...) needs a torch.nn.Module, not a {type(module).__name__}.")
    return sum(parameter.numel() for parameter in parameters())
