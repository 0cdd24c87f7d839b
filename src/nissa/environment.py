"""One training environment: a model that trains, its epochs, and its seeds."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.diagnostics.tracker import Observations
from nissa.distributed.dtensors import whole
from nissa.errors import ConfigurationError
from nissa.events import EventType, Severity, SpanIds
from nissa.gradients.readback import number
from nissa.hub.measurements import ValidationMeasured
from nissa.seeds.lifecycle import restore, state_dict
from nissa.seeds.seed import Seed
from nissa.seeds.slots import SeedRecord, new_span_id, new_trace_id
from nissa.seeds.stages import ALIVE

if TYPE_CHECKING:
    import torch

    from nissa.diagnostics.tracker import Diagnosis
    from nissa.gradients.watch import Watch
    from nissa.session import Session


class Environment:
    """What a training loop talks to; obtained from ``run.environment``, and a `Run` is one itself.

    Attributes:
        env_id: The environment's id as text, None for the run's own.
    """

    def __init__(self, session: "Session", env_id: str | None) -> None:
        self.env_id = env_id
        self._session = session
        self._clock = session.clock(env_id)
        self._epoch: int | None = None
        self._validated: EpochSnapshot | None = None
        self._train_loss: float | None = None

    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
    ) -> "Watch":
        """See every ``optimizer.step()`` from here on; the handle's ``close()`` ends it and leaves no hook.

        The network may grow and shrink meanwhile: parameters and parameter groups that appear are seen at the next
        sampled step, those that vanish end their streams. Of several optimizers of an environment, the first one's
        steps are the environment's steps.

        Args:
            model: Names the parameters.
            optimizer: Uses the gradients.
            name: Tells several models of an environment apart.
            scaler: What calls the optimizer; steps that it skips are then counted. Gradients are seen without the
                loss scale either way.
            hooks: Register hooks on the optimizer. Without them the optimizer is left alone, and each step is marked
                with ``with handle.step():``, for a ``step()`` that is compiled as a whole or replayed from a CUDA graph.

        Raises:
            WatchError: They cannot be watched together, or the optimizer is watched already.
        """
        return self._session.watch(self.env_id, model, optimizer, name=name, scaler=scaler, hooks=hooks)

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Mark an epoch; everything in the block belongs to it. An exception passes through unchanged."""
        ids = SpanIds(new_trace_id(), new_span_id())
        self._begin_epoch(number, ids)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end_epoch(number, error)

    @contextmanager
    def checkpoint(self, path: "str | os.PathLike[str] | None" = None) -> Iterator[None]:
        """Mark the saving of a checkpoint; it becomes a ``checkpoint`` span of the epoch."""
        started = self._session.now()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            data = {"path": None if path is None else os.fspath(path), "started": started, "error": _named(error)}
            self._send(EventType.CHECKPOINT_SAVED, data=data | self._epoch_identity())

    def log_loss(self, loss: "torch.Tensor | float", *, model: str | None = None) -> None:
        """Give the training loss of the step that follows; a device tensor is fine and is not waited for.

        Args:
            loss: One number.
            model: Name of the watch whose step is meant, where an environment has several; else it is its first one's.
        """
        self._clock.log_loss(loss, model)

    def clip_grad_norm_(
        self,
        parameters: "torch.Tensor | Iterable[torch.Tensor]",
        max_norm: float,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
        foreach: bool | None = None,
        *,
        model: str | None = None,
    ) -> "torch.Tensor":
        """Clip gradients as ``torch.nn.utils.clip_grad_norm_`` does, and note their norm before and the factor.

        Both are exported with the step that follows, as ``nissa.clip.norm`` and ``nissa.clip.factor``; nothing waits
        for a device.

        Args:
            parameters: As in torch.
            max_norm: As in torch.
            norm_type: As in torch.
            error_if_nonfinite: As in torch.
            foreach: As in torch.
            model: Name of the watch whose step is meant, where an environment has several; else it is its first one's.

        Returns:
            The norm before, as torch returns it.
        """
        from torch.nn.utils import clip_grad_norm_  # noqa: PLC0415 - `import nissa` must not import torch

        norm = clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
        with self._session.containment.guard("clip_grad_norm_"):
            self._clock.log_clipping(whole(norm), float(max_norm), model)
        return norm

    def validate(
        self,
        *,
        loss: "torch.Tensor | float | None" = None,
        accuracy: "torch.Tensor | float | None" = None,
        per_class_accuracy: Mapping[Any, float] | None = None,
        train_accuracy: "torch.Tensor | float | None" = None,
    ) -> EpochSnapshot:
        """Say what a validation found, and hear what training looks like.

        Args:
            loss: Validation loss.
            accuracy: Validation accuracy as a fraction.
            per_class_accuracy: Accuracy per class name, as fractions; used where the profile has ``per_class``.
            train_accuracy: Training accuracy as a fraction.
        """
        snapshot = EpochSnapshot(epoch=self._epoch, env_id=self.env_id)
        with self._session.containment.guard("validate"):
            at, wait = self._session.now(), self._session.config.limits.validation_wait_seconds
            self._session.reader.flush(wait)
            self._train_loss = self._mean_loss()
            seen = Observations(
                epoch=self._epoch,
                env_id=self.env_id,
                train_loss=self._train_loss,
                train_accuracy=number(train_accuracy, wait),
                validation_loss=number(loss, wait),
                validation_accuracy=number(accuracy, wait),
                per_class_accuracy=_numbers(per_class_accuracy, wait),
                gradient_health=self._session.delivery.latest(self.env_id).health(),
                gradient_percentiles=self._session.percentiles(self.env_id),
            )
            diagnosis = self._session.tracker(self.env_id).diagnose(seen)
            self._validated = snapshot = diagnosis.snapshot
            self._tell(diagnosis, at)
        return snapshot

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
        self._send(EventType.SEED_GERMINATED, seed_id=str(seed_id), slot_id=slot, data=data)
        self._grow(str(seed_id), module)
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
        self._send(
            EventType.CHECKPOINT_LOADED,
            seed_id=record.seed_id,
            slot_id=record.slot_id,
            data={"seed_state": dict(state)},
        )
        self._grow(record.seed_id, module)
        return self._seed(record.seed_id)

    @property
    def seeds(self) -> list[Seed]:
        """The environment's seeds, in the order in which they germinated."""
        return [self._seed(record.seed_id) for record in self._session.table.slots.of(self.env_id)]

    @property
    def history(self) -> tuple[EpochSnapshot, ...]:
        """The newest snapshots, oldest first; how many is ``history_length`` of the configuration."""
        return tuple(self._session.tracker(self.env_id).history)

    def _grow(self, seed_id: str, module: "torch.nn.Module | None") -> None:
        if module is not None:
            self._session.modules.add(self.env_id, seed_id, module)

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
        return Seed(record, session.table.slots, session.deliver, clock=session.now)

    def _send(self, event_type: EventType, **fields: Any) -> None:
        self._session.send(event_type, env_id=self.env_id, epoch=self._epoch, **fields)

    def _begin_epoch(self, number_: int, ids: SpanIds) -> None:
        self._epoch, self._validated, self._train_loss = number_, None, None
        self._clock.begin_epoch(ids)
        self._send(EventType.EPOCH_STARTED, data=self._epoch_identity())

    def _end_epoch(self, number_: int, error: BaseException | None) -> None:
        with self._session.containment.guard("epoch"):
            at = self._session.now()
            seen = self._validated
            if seen is None and error is None:
                self._session.reader.flush(self._session.config.limits.validation_wait_seconds)
                self._train_loss = self._mean_loss()
            data = {
                "train_loss": self._train_loss,
                "seeds": dict(Counter(seed.stage.label for seed in self._session.table.slots.of(self.env_id))),
                "error": _named(error),
                **(_told(seen) if seen else {}),
                **self._epoch_identity(),
            }
            self._epoch = number_
            self._send(EventType.EPOCH_COMPLETED, data=data, time_unix_nano=at)
        self._clock.end_epoch()
        self._epoch = None

    def _epoch_identity(self) -> dict[str, Any]:
        ids = self._clock.epoch_ids
        return {} if ids is None else {"trace_id": ids.trace_hex, "span_id": f"{ids.span_id:016x}"}

    def _mean_loss(self) -> float | None:
        ids = self._clock.epoch_ids
        losses = self._session.delivery.latest(self.env_id).epochs.get(ids.span_id if ids else 0)
        return losses.mean if losses else None

    def _tell(self, diagnosis: "Diagnosis", at: int) -> None:
        snapshot = diagnosis.snapshot
        self._session.hub.record(
            ValidationMeasured(
                env_id=self.env_id,
                epoch=self._epoch,
                started=self._clock.last or at,
                time_unix_nano=at,
                loss=snapshot.validation_loss,
                accuracy=snapshot.validation_accuracy,
                train_loss=snapshot.train_loss,
                train_accuracy=snapshot.train_accuracy,
                narrative=snapshot.narrative,
                per_class_accuracy=snapshot.per_class_accuracy,
                red_flags=diagnosis.flags,
                epoch_ids=self._clock.epoch_ids,
            )
        )
        for kind, data in diagnosis.trends:
            worse = kind is EventType.PERFORMANCE_DEGRADATION
            self._send(kind, data=data, severity=Severity.WARNING if worse else Severity.INFO, time_unix_nano=at)


def open_states(session: "Session") -> list[dict[str, Any]]:
    """Return the states of all seeds whose fate is open, for a checkpoint."""
    return [state_dict(record) for record in session.table.slots if record.stage in ALIVE]


def _told(snapshot: EpochSnapshot) -> dict[str, Any]:
    health = snapshot.gradient_health
    return {
        "train_loss": snapshot.train_loss,
        "validation_loss": snapshot.validation_loss,
        "train_accuracy": snapshot.train_accuracy,
        "validation_accuracy": snapshot.validation_accuracy,
        "gradient_health": health.score if health else None,
        "gradient_norm": health.global_norm if health else None,
        "narrative": snapshot.narrative,
        "red_flags": list(snapshot.red_flags) or None,
    }


def _numbers(given: Mapping[Any, Any] | None, wait: float) -> dict[object, float]:
    read = {name: number(value, wait) for name, value in (given or {}).items()}
    return {name: value for name, value in read.items() if value is not None}


def _named(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


def _count(module: object) -> int:
    parameters = getattr(module, "parameters", None)
    if not callable(parameters):
        raise ConfigurationError(f"germinate(module=...) needs a torch.nn.Module, not a {type(module).__name__}.")
    return sum(parameter.numel() for parameter in parameters())
