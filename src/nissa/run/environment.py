"""Telemetry of one training loop: watches, epochs, validations and seeds."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import index
from threading import get_ident
from typing import TYPE_CHECKING, Any, overload

from nissa.diagnostics.brief import DecisionBrief, decision_brief
from nissa.diagnostics.snapshot import EpochSnapshot
from nissa.distributed.dtensors import whole
from nissa.events import EventType, SpanIds
from nissa.random_ids import new_span_id, new_trace_id
from nissa.run.environment_seeds import EnvironmentSeeds
from nissa.run.validation import Validation, ValidationInputs
from nissa.run.value_log import ValueLog
from nissa.seeds.inputs import SeedInputs
from nissa.seeds.seed import Seed

if TYPE_CHECKING:
    import torch

    from nissa.diagnostics.meter import Measured, ValidationMeter
    from nissa.diagnostics.tracker import DiagnosticTracker
    from nissa.distributed.replica_groups import Replicas
    from nissa.events import TelemetryEvent
    from nissa.gradients.watch import Watch
    from nissa.gradients.watch_group import WatchGroup
    from nissa.run.runtime import Runtime


class Environment:
    """Telemetry interface for one training loop, returned by ``run.environment``; a `Run` has the same methods.

    Attributes:
        env_id: The environment's id as text, None for the default environment of the run.
    """

    def __init__(self, runtime: "Runtime", env_id: str | None) -> None:
        self.env_id = env_id
        self._runtime = runtime
        self._epoch: int | None = None
        # The last epoch, which a validation after its end belongs to.
        self._ended_epoch: int | None = None
        self._clock = runtime.clock(env_id)
        self._validation = Validation(runtime, env_id)
        self._value_log = ValueLog(runtime, env_id)
        self._seeds = EnvironmentSeeds(runtime, env_id, self._send)
        self._inputs = SeedInputs(runtime.refuse)
        self._epoch_snapshot: EpochSnapshot | None = None

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Mapping[torch.nn.Parameter, torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Mapping[str, torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "WatchGroup": ...

    @overload
    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "Iterable[torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch | WatchGroup": ...

    def watch(
        self,
        model: "torch.nn.Module",
        optimizer: "torch.optim.Optimizer | Mapping[Any, torch.optim.Optimizer] | Iterable[torch.optim.Optimizer]",
        *,
        name: str | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        hooks: bool = True,
        replicas: "Replicas" = "auto",
    ) -> "Watch | WatchGroup":
        """Watch every ``optimizer.step()`` until ``close()`` of the returned handle, which removes all hooks.

        The network may grow and shrink meanwhile. New parameters and parameter groups are included from the next
        sampled step on; the streams of removed parameters end. If an environment watches several optimizers, the steps
        of the first one count as the environment's steps.

        Args:
            model: Model that owns the parameters; its parameter names are exported.
            optimizer: Optimizer that uses the gradients, or a wrapper around one (accelerate, Opacus, SAM, Lookahead
                ...): the innermost optimizer whose step hooks run is watched.
            name: Name that distinguishes several watches of an environment.
            scaler: Gradient scaler that calls the optimizer. If it is passed, the steps that it skips are counted.
                Gradients are measured without the loss scale in either case, but with ``hooks=False`` only if it is
                passed. By default it is the one that a wrapper of the optimizer holds.
            hooks: Register hooks on the optimizer. If False, the optimizer is left unchanged, and each step must be
                marked with ``with handle.step():``. Use this for a ``step()`` that is compiled as a whole or replayed
                from a CUDA graph.
            replicas: Ranks whose weights must be equal to those of this one, and are compared: a process group, or a device mesh
                of one dimension. By default they are those over which a wrapper (``DistributedDataParallel``, HSDP,
                ``replicate``) averages gradients; without one, all ranks if their weights are equal at the first comparison.
                None compares nothing, as for local SGD.

        Raises:
            WatchError: The model and the optimizer cannot be watched together, or the optimizer is watched already.
        """
        return self._runtime.watches.add(
            self.env_id, model, optimizer, name=name, scaler=scaler, hooks=hooks, replicas=replicas
        )

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Mark an epoch; everything in the block belongs to it. An exception passes through unchanged.

        Args:
            number: A whole number.
        """
        whole_number = _whole(number)
        if whole_number is None:
            self._runtime.refuse("epoch()", f"Pass a whole number, not {type(number).__name__}: the block is no epoch.")
            yield
            return
        number = whole_number
        self._begin_epoch(number)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end_epoch(number, error)

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, for callbacks that cannot use a ``with`` block; an epoch that is still open ends first.

        Args:
            number: A whole number.
        """
        whole_number = _whole(number)
        if whole_number is None:
            self._runtime.refuse("begin_epoch()", f"Pass a whole number, not {type(number).__name__}.")
            return
        if self._epoch is not None:
            self._end_epoch(self._epoch, None)
        self._begin_epoch(whole_number)

    def end_epoch(self) -> None:
        """End the epoch that `begin_epoch` has begun. A validation that follows still belongs to it."""
        if self._epoch is None:
            self._runtime.refuse("end_epoch()", "No epoch is open; call begin_epoch() first.")
            return
        self._end_epoch(self._epoch, None)

    @contextmanager
    def checkpoint(self, path: "str | os.PathLike[str] | None" = None) -> Iterator[None]:
        """Mark the saving of a checkpoint, exported as a ``checkpoint`` span of the epoch."""
        started = self._runtime.now()
        saved_to = self._inputs.accept("checkpoint()", _path, path)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            data = {"path": saved_to, "started": started, "error": _type_name(error)}
            self._send(EventType.CHECKPOINT_SAVED, data=data | self._epoch_identity())

    def log_loss(self, loss: "torch.Tensor | float", *, scale: float = 1.0, model: str | None = None) -> None:
        """Log the training loss of the next step, as it is at this moment. A device tensor is accepted and not waited for.

        Losses of several calls before a step are averaged, as with gradient accumulation.

        Args:
            loss: Scalar loss.
            scale: Factor that undoes a division: 4 for a loss that was divided by 4 for gradient accumulation.
            model: Name of the watch that the value belongs to; by default the first watch of the environment.
        """
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("log_loss"):
            try:
                self._clock.log_loss(loss, model, scale=scale)
            except (TypeError, ValueError, OverflowError) as error:
                self._runtime.refuse("log_loss()", str(error).removeprefix("log_loss() "))

    def log(
        self, values: "Mapping[str, torch.Tensor | float] | None" = None, /, **named: "torch.Tensor | float"
    ) -> None:
        """Log scalars of your own, as they are at this moment: ``log(kl=0.1)`` or ``log({"policy/entropy": entropy})``.

        They are exported as ``nissa.scalar`` with the next step of a watched optimizer, and a device tensor joins the copy
        of that step. Several values of one name before a step are averaged. Without a watched optimizer, and at the end of
        an epoch or of the run, they are exported with the time of the call.

        Args:
            values: Scalars by name. A value is a number or a tensor of one element.
            **named: Further scalars by name.
        """
        self._value_log.scalars(values, named)

    def log_items(
        self, items: "Mapping[str, torch.Tensor | int] | None" = None, /, **named: "torch.Tensor | int"
    ) -> None:
        """Count processed items, for throughput: ``log_items(samples=64, tokens=65536)``.

        They are exported as the counter ``nissa.items``, at the same times as the scalars of `log`.

        Args:
            items: Numbers of items by kind. A number is a whole number or a tensor of one integer, for example
                ``attention_mask.sum()``.
            **named: Further numbers of items by kind.
        """
        self._value_log.items(items, named)

    def log_clip(self, norm: "torch.Tensor | float", max_norm: float, *, model: str | None = None) -> None:
        """Log a clipping of gradients that the training loop did by itself; see `clip_grad_norm_`.

        Both are exported with the next step: the norm as ``nissa.clip.norm``, and as ``nissa.clip.factor`` the factor of
        ``torch.nn.utils.clip_grad_norm_``, ``max_norm / (norm + 1e-6)``, at most 1.

        Args:
            norm: Norm of all gradients before clipping, as it is at this moment; a device tensor is not waited for.
            max_norm: Maximum norm.
            model: Name of the watch that the value belongs to; by default the first watch of the environment.
        """
        self._value_log.clip(norm, max_norm, model)

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
        """Clip gradients like ``torch.nn.utils.clip_grad_norm_``, and log their norm before clipping and the factor.

        Both are exported with the next step, as ``nissa.clip.norm`` and ``nissa.clip.factor``. Logging them does not
        wait for a device.

        Args:
            parameters: As in torch.
            max_norm: As in torch.
            norm_type: As in torch.
            error_if_nonfinite: As in torch.
            foreach: As in torch.
            model: Name of the watch that the value belongs to; by default the first watch of the environment.

        Returns:
            The norm before clipping, as torch returns it.
        """
        from torch.nn.utils import clip_grad_norm_  # noqa: PLC0415 - `import nissa` must not import torch

        norm = clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("clip_grad_norm_"):
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
        """Log the results of a validation, and return a diagnosis of the training.

        Args:
            loss: Validation loss.
            accuracy: Validation accuracy as a fraction.
            per_class_accuracy: Accuracy per class name, as fractions; used where the profile has ``per_class``.
            per_class_loss: Loss per class name; used where the profile has ``per_class.track_loss``.
            train_accuracy: Training accuracy as a fraction.
            meter: Meter that accumulated the validation, or its ``result()``. Other arguments take precedence over its
                values. The call waits for the meter's single copy from the device, and does not reset the meter.
            closure: Function that returns the loss of a fixed batch. It is used to measure the sharpness of the first
                watched model, in the epochs selected by ``sharpness.every_n_epochs``. It is called several times.
                Weights, buffers, random states and modes are restored afterwards.

        Returns:
            The snapshot. A fault in the meter or the closure is logged once; the affected fields are then None.
        """
        self._runtime.export_logged(self.env_id)
        inputs = ValidationInputs(loss, accuracy, per_class_accuracy, per_class_loss, train_accuracy, meter, closure)
        epoch = self._ended_epoch if self._epoch is None else self._epoch
        snapshot = EpochSnapshot(epoch=epoch, env_id=self.env_id, narrative="No diagnosis: the validation failed")
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("validate"):
            snapshot = self._epoch_snapshot = self._validation(epoch, inputs)
        return snapshot

    def diagnose(self) -> EpochSnapshot:
        """Return a diagnosis of the training so far, for loops without epochs or between validations.

        The call waits for the statistics of the last step, at most ``limits.validation_wait_seconds``. Unlike a validation,
        it is not added to `history`, and no rule judges it: the rules about steps and gradients judge each step anyway.
        Outside epochs, a narrative is exported after every ``diagnosis.every_n_steps`` steps as well.

        Returns:
            The snapshot: narrative, ``red_flags``, ``findings``, mean training loss, gradients and changes of seeds.
        """
        epoch = self._ended_epoch if self._epoch is None else self._epoch
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("diagnose"):
            return self._validation.diagnose(epoch)
        return EpochSnapshot(epoch=epoch, env_id=self.env_id, narrative="No diagnosis: it failed")

    def brief(self, *, action: object, reason: str | None = None) -> DecisionBrief:
        """Return the numbers and findings for a policy or language model that makes or explains a decision.

        Before the first validation, ``validations`` of the brief is 0.

        Args:
            action: Planned or completed action. A member of an enumeration is represented by its name.
            reason: Reason for the action, in the policy's words.
        """
        with self._runtime.error_boundary.guard("brief"):
            return self.tracker.brief(action=action, reason=reason)
        return decision_brief(action, reason, None, validations=0)

    def features(self) -> tuple[float, ...]:
        """Return the current state as ``config.feature_count`` bounded numbers; see `nissa.signals_to_features`."""
        with self._runtime.error_boundary.guard("features"):
            return self.tracker.features()
        return tuple(spec.missing for spec in self._runtime.config.feature_specs)

    @property
    def tracker(self) -> "DiagnosticTracker":
        """Snapshots of the environment, and the rules that are applied to them."""
        return self._runtime.tracker(self.env_id)

    @property
    def history(self) -> tuple[EpochSnapshot, ...]:
        """Newest snapshots, oldest first; at most ``history_length`` of the configuration."""
        return tuple(self.tracker.history)

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

        Returns:
            The handle. If the id was refused, its methods record nothing.

        Raises:
            InvalidValueError: An argument is invalid, and the run is strict.
            TransitionError: A seed with this id is alive, and the run is strict.
        """
        return self._seeds.germinate(seed_id, blueprint=blueprint, slot=slot, module=module, parameters=parameters)

    def resume_seed(self, state: Mapping[str, Any], *, module: "torch.nn.Module | None" = None) -> Seed:
        """Continue the life of a seed saved by ``Seed.state_dict()``, in the same trace.

        For a seed that ``nissa.start(resume=...)`` has continued already, only the module is attached.

        Args:
            state: Return value of ``state_dict()``.
            module: Module of the seed; its gradients are compared with those of the host. Only a weak reference is
                kept.

        Returns:
            The handle. If the state was refused, its methods record nothing.

        Raises:
            InvalidValueError: The state does not come from ``state_dict()`` or belongs to another environment, or
                ``module`` is not a ``torch.nn.Module``, and the run is strict.
            TransitionError: A seed with this id is alive, and the run is strict.
        """
        return self._seeds.resume(state, module=module)

    @property
    def seeds(self) -> list[Seed]:
        """Seeds of the environment, in the order in which they germinated."""
        return self._seeds.all()

    def _begin_epoch(self, number: int) -> None:
        self._runtime.export_logged(self.env_id)
        ids, parent = SpanIds(new_trace_id(), new_span_id()), None
        resumed = self._runtime.resumed_epochs.pop(self.env_id, None)
        if resumed is not None and resumed[0] == number:  # the checkpoint was saved within this epoch
            ids, parent = SpanIds(resumed[1].trace_id, ids.span_id), f"{resumed[1].span_id:016x}"
        self._epoch, self._epoch_snapshot = number, None
        self._runtime.epoch_threads[self.env_id] = get_ident()
        self._runtime.open_epochs[self.env_id] = number, ids
        self._clock.begin_epoch(ids)
        self._send(EventType.EPOCH_STARTED, data=self._epoch_identity() | {"parent_span_id": parent})

    def _end_epoch(self, number: int, error: BaseException | None) -> None:
        self._runtime.export_logged(self.env_id)
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("epoch"):
            at = self._runtime.now()
            snapshot, losses = self._epoch_snapshot, None
            # validate() waits for the readback. Without it, the mean loss would lack the last steps, so wait here. An epoch
            # that fails has losses, too.
            if snapshot is None:
                self._validation.wait()
                losses = self._validation.losses()
            data = {
                "train_loss": losses.mean if losses else None,
                "seeds": dict(Counter(seed.stage.label for seed in self._runtime.table.slots.of(self.env_id))),
                "error": _type_name(error),
                **(_snapshot_data(snapshot) if snapshot else {}),
                **self._epoch_identity(),
            }
            self._epoch = number
            self._send(EventType.EPOCH_COMPLETED, data=data, time_unix_nano=at)
            if error is None:
                self._runtime.watches.warn_without_steps(self.env_id, "an epoch has ended")
        self._clock.end_epoch()
        self._runtime.open_epochs.pop(self.env_id, None)
        self._epoch, self._ended_epoch = None, number

    def _epoch_identity(self) -> dict[str, Any]:
        ids = self._clock.epoch_ids
        return {} if ids is None else {"trace_id": ids.trace_hex, "span_id": f"{ids.span_id:016x}"}

    def _send(self, event_type: EventType, **fields: Any) -> "Sequence[TelemetryEvent]":
        return self._runtime.send(event_type, env_id=self.env_id, epoch=self._epoch, **fields)


def _snapshot_data(snapshot: EpochSnapshot) -> dict[str, Any]:
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


def _whole(number: object) -> int | None:
    try:
        return index(number)  # type: ignore[arg-type]  # also for the integers of numpy and torch
    except TypeError:
        return None


def _path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Pass a path, not {type(path).__name__}.")
    return os.fsdecode(path)


def _type_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__
