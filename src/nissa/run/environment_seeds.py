"""Seeds of one environment: their beginnings, and the handles that users hold."""

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from nissa.diagnostics.features import seed_features
from nissa.events import EventType, TelemetryEvent
from nissa.seeds import inputs
from nissa.seeds.checkpoint import restore
from nissa.seeds.inputs import SeedInputs
from nissa.seeds.seed import Seed
from nissa.seeds.slots import SeedRecord
from nissa.seeds.stages import ALIVE
from nissa.semconv.cardinality import UNKNOWN

if TYPE_CHECKING:
    from nissa.run.runtime import Runtime

Send = Callable[..., Sequence[TelemetryEvent]]
"""Emits an event of the environment, see `Runtime.send`."""


class EnvironmentSeeds:
    """Seeds of one environment.

    Args:
        runtime: Components of the run.
        env_id: Id of the environment.
        send: Emits an event with the environment's current epoch.
    """

    def __init__(self, runtime: "Runtime", env_id: str | None, send: Send) -> None:
        self._runtime = runtime
        self._env_id = env_id
        self._send = send
        self._inputs = SeedInputs(runtime.refuse)

    def germinate(self, seed_id: Any, *, blueprint: Any, slot: Any, module: Any, parameters: Any) -> Seed:
        """Begin the life of a seed; see `Environment.germinate`."""
        accept = self._inputs.accept
        name = self._inputs.require("germinate()", inputs.label, seed_id)
        found = accept("germinate(module=...)", _module, module)
        count = accept("germinate(parameters=...)", inputs.whole, parameters)
        data = {
            "blueprint_id": accept("germinate(blueprint=...)", inputs.label, blueprint),
            "parameters": count if found is None else _count_parameters(found),
        }
        place = accept("germinate(slot=...)", inputs.label, slot)
        if name is None:
            return self._handle(self._unrecorded(UNKNOWN))
        events = self._send(EventType.SEED_GERMINATED, seed_id=name, slot_id=place, data=data)
        self._attach_module(events, found)
        return self._seed(name)

    def resume(self, state: Any, *, module: Any) -> Seed:
        """Continue the life of a saved seed; see `Environment.resume_seed`."""
        found = self._inputs.accept("resume_seed(module=...)", _module, module)
        record = self._inputs.require("resume_seed()", self._restored, state)
        if record is None:
            return self._handle(self._unrecorded(UNKNOWN))
        if self._is_resumed(record):
            self._attach(record.seed_id, found)
            return self._seed(record.seed_id)
        data = {"seed_state": dict(state)}
        events = self._send(EventType.CHECKPOINT_LOADED, seed_id=record.seed_id, slot_id=record.slot_id, data=data)
        self._attach_module(events, found)
        return self._seed(record.seed_id)

    def all(self) -> list[Seed]:
        """Return the seeds in the order in which they germinated."""
        return [self._seed(record.seed_id) for record in self._runtime.table.slots.of(self._env_id)]

    def _restored(self, state: object) -> SeedRecord:
        record = restore(state)
        if record.env_id != self._env_id:
            owner = "run" if record.env_id is None else f"run.environment({record.env_id!r})"
            raise ValueError(
                f"Seed {record.seed_id!r} belongs to {'the run' if record.env_id is None else 'another environment'}, not to "
                f"{'the run' if self._env_id is None else f'environment {self._env_id!r}'}; resume it with "
                f"{owner}.resume_seed(state)."
            )
        return record

    def _attach_module(self, events: Sequence[TelemetryEvent], module: Module | None) -> None:
        """Attach the module to the record of a seed that has just germinated or resumed."""
        if events and events[-1].refused is None and events[-1].seed_id is not None:
            self._attach(events[-1].seed_id, module)

    def _attach(self, seed_id: str, module: Module | None) -> None:
        record = self._runtime.table.slots.get((self._env_id, seed_id))
        if record is not None and module is not None:
            record.module = weakref.ref(module)

    def _is_resumed(self, record: SeedRecord) -> bool:
        """Whether the same life already goes on in this process, as the same attempt."""
        known = self._runtime.table.slots.get(record.key)
        same = known is not None and known.ids.trace_id == record.ids.trace_id
        return same and known is not None and known.attempt == record.attempt and known.stage in ALIVE

    def _seed(self, seed_id: str) -> Seed:
        # If telemetry failed, the table has no record. Training still needs a handle with working methods.
        return self._handle(self._runtime.table.slots.get((self._env_id, seed_id)) or self._unrecorded(seed_id))

    def _unrecorded(self, seed_id: str) -> SeedRecord:
        now = self._runtime.now()
        return SeedRecord(
            seed_id=seed_id,
            env_id=self._env_id,
            slot_id=None,
            blueprint_id=None,
            parameters=None,
            germinated_at=now,
            stage_since=now,
        )

    def _handle(self, record: SeedRecord) -> Seed:
        runtime = self._runtime
        return Seed(
            record,
            runtime.table.slots,
            runtime.deliver,
            clock=runtime.now,
            features=self._features,
            refuse=runtime.refuse,
        )

    def _features(self, record: SeedRecord) -> tuple[float, ...]:
        """Return the feature vector of a seed; on a fault, the vector of a seed without measurements."""
        runtime, seed = self._runtime, record.snapshot()
        with runtime.error_boundary.guard("seed features"):
            latest = runtime.step_processor.latest(self._env_id)
            ratio = None if seed.slot_id is None else latest.ratios().get(seed.slot_id)
            return runtime.tracker(self._env_id).seed_features(seed, health=latest.seed(seed.slot_id), ratio=ratio)
        return seed_features(seed)


def _module(module: Any) -> Module:
    if not isinstance(module, Module):
        raise TypeError(f"Pass a torch.nn.Module, not {type(module).__name__}.")
    return module


def _count_parameters(module: Module) -> int:
    return sum(map(_size, module.parameters()))


def _size(parameter: Tensor) -> int:
    # A parameter of a lazy module has no shape before the first batch.
    return 0 if is_lazy(parameter) else parameter.numel()
