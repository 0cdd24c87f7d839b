"""One training environment: a model that trains, its epochs, and its seeds."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.brief import DecisionBrief, decision_brief
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.distributed.dtensors import whole
from nissa.events import EventType, SpanIds
from nissa.seed_methods import EnvironmentSeeds
from nissa.seeds.slots import new_span_id, new_trace_id
from nissa.validation import Validation, ValidationInputs

if TYPE_CHECKING:
    import torch

    from nissa.diagnostics.meter import Measured, ValidationMeter
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.gradients.watch import Watch
    from nissa.session import Session


class Environment(EnvironmentSeeds):
    """What a training loop talks to; obtained from ``run.environment``, and a `Run` is one itself.

    Attributes:
        env_id: The environment's id as text, None for the run's own.
    """

    def __init__(self, session: "Session", env_id: str | None) -> None:
        super().__init__(session, env_id)
        self._clock = session.clock(env_id)
        self._validation = Validation(session, env_id)
        self._validated: EpochSnapshot | None = None

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
        with self._session.stopwatch.own:
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
        with self._session.stopwatch.own, self._session.error_boundary.guard("clip_grad_norm_"):
            self._clock.log_clipping(whole(norm), float(max_norm), model)
        return norm

    def validate(
        self,
        *,
        loss: "torch.Tensor | float | None" = None,
        accuracy: "torch.Tensor | float | None" = None,
        per_class_accuracy: Mapping[Any, float] | None = None,
        per_class_loss: Mapping[Any, float] | None = None,
        train_accuracy: "torch.Tensor | float | None" = None,
        meter: "ValidationMeter | Measured | None" = None,
        closure: "Callable[[], torch.Tensor] | None" = None,
    ) -> EpochSnapshot:
        """Say what a validation found, and hear what training looks like.

        Args:
            loss: Validation loss.
            accuracy: Validation accuracy as a fraction.
            per_class_accuracy: Accuracy per class name, as fractions; used where the profile has ``per_class``.
            per_class_loss: Loss per class name; used where the profile has ``per_class.track_loss``.
            train_accuracy: Training accuracy as a fraction.
            meter: Has added up the validation, or what its ``result()`` returned. What is given beside it wins over
                it. Its one copy from the device is waited for; it is not reset.
            closure: Returns the loss of a fixed batch, by which sharpness is measured in the epochs that
                ``sharpness.every_n_epochs`` names, on the first model that is watched. It is called several times.
                Weights, buffers, random numbers and modes are the same before and after.

        Returns:
            The snapshot. A meter or closure that fails is logged once and leaves its part of it absent.
        """
        inputs = ValidationInputs(loss, accuracy, per_class_accuracy, per_class_loss, train_accuracy, meter, closure)
        snapshot = EpochSnapshot(epoch=self._epoch, env_id=self.env_id)
        with self._session.stopwatch.own, self._session.error_boundary.guard("validate"):
            snapshot = self._validated = self._validation(self._epoch, inputs)
        return snapshot

    def brief(self, *, action: object, reason: str | None = None) -> DecisionBrief:
        """Return what a policy or a language model should know that is to decide, or to explain what it did.

        Before the first validation, the brief says so (``validations`` is 0).

        Args:
            action: What is to be done, or was; of a member of an enumeration, its name.
            reason: Why, in the policy's words.
        """
        with self._session.error_boundary.guard("brief"):
            return self.tracker.brief(action=action, reason=reason)
        return decision_brief(action, reason, None, validations=0)

    def features(self) -> tuple[float, ...]:
        """Return what is known as ``config.feature_count`` bounded numbers; see `nissa.signals_to_features`."""
        with self._session.error_boundary.guard("features"):
            return self.tracker.features()
        return tuple(spec.missing for spec in self._session.config.feature_specs)

    @property
    def tracker(self) -> "DiagnosticTracker":
        """The environment's history, and the rules that judge it."""
        return self._session.tracker(self.env_id)

    @property
    def history(self) -> tuple[EpochSnapshot, ...]:
        """The newest snapshots, oldest first; how many is ``history_length`` of the configuration."""
        return tuple(self.tracker.history)

    def _begin_epoch(self, number_: int, ids: SpanIds) -> None:
        self._epoch, self._validated = number_, None
        self._clock.begin_epoch(ids)
        self._send(EventType.EPOCH_STARTED, data=self._epoch_identity())

    def _end_epoch(self, number_: int, error: BaseException | None) -> None:
        with self._session.stopwatch.own, self._session.error_boundary.guard("epoch"):
            at = self._session.now()
            seen, losses = self._validated, None
            if seen is None and error is None:
                with self._session.stopwatch.own.pause:
                    self._session.readback.wait(self.env_id, self._session.config.limits.validation_wait_seconds)
                losses = self._validation.losses()
            data = {
                "train_loss": losses.mean if losses else None,
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


def _named(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__
