"""Implementation of ``validate()`` and ``diagnose()``: collect observations, diagnose them, and emit the results."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.meter import Measured
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.sharpness.probe import SharpnessProbe
from nissa.events import EventType, Severity
from nissa.hub.measurements import ValidationMeasured
from nissa.kernels.transfer import number
from nissa.run.diagnosis import diagnose, from_steps, lacks_losses

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from nissa.diagnostics.meter import ValidationMeter
    from nissa.diagnostics.sharpness.measured import SharpnessMeasured
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.diagnostics.tracker import Diagnosis
    from nissa.gradients.losses import Losses
    from nissa.run.runtime import Runtime

_logger = logging.getLogger("nissa")


@dataclass(frozen=True, slots=True)
class ValidationInputs:
    """Arguments of `Environment.validate`; documented there."""

    loss: "torch.Tensor | float | None" = None
    accuracy: "torch.Tensor | float | None" = None
    per_class_accuracy: Mapping[Any, float] | None = None
    per_class_loss: Mapping[Any, float] | None = None
    train_accuracy: "torch.Tensor | float | None" = None
    meter: "ValidationMeter | Measured | None" = None
    closure: "Callable[[], torch.Tensor] | None" = None


class Validation:
    """Validations of one environment."""

    def __init__(self, runtime: "Runtime", env_id: str | None) -> None:
        self._runtime = runtime
        self._env_id = env_id
        self._clock = runtime.clock(env_id)
        self._probe = SharpnessProbe(runtime.config.sharpness)
        self._warned_unwatched = False

    def __call__(self, epoch: int | None, inputs: ValidationInputs) -> "EpochSnapshot":
        """Diagnose one validation, emit the results, and return the snapshot."""
        at = self._runtime.now()
        forward_modes = self._runtime.watches.forward_modes(self._env_id)  # before the closure adds forward passes
        # These calls wait for the device by design, so the time does not count as overhead.
        with self._runtime.stopwatch.own.pause:
            # Read the meter first: once its copy has arrived, the device has computed the values read below as well.
            metered = self._meter_result(inputs.meter)
            arrived = self._runtime.readback.wait(self._env_id, self._runtime.config.limits.validation_wait_seconds)
            values = self._from_inputs(inputs, metered)
        sharpness = self._sharpness(epoch, inputs.closure)
        observations = Observations(
            epoch=epoch,
            env_id=self._env_id,
            time_unix_nano=at,
            seeds=self._runtime.validated(self._env_id, values["validation_accuracy"], at),
            forward_modes=forward_modes,
            incomplete=(*self._missing(inputs, metered, values), *self._incomplete_loss(arrived=arrived)),
            **from_steps(self._runtime, self._env_id, self._clock.epoch_ids),
            **values,
            **({} if sharpness is None else _sharpness_values(sharpness)),
        )
        diagnosis = self._runtime.tracker(self._env_id).diagnose(observations)
        self._emit(diagnosis, at)
        self._clock.interrupt()
        return diagnosis.snapshot

    def diagnose(self, epoch: int | None) -> "EpochSnapshot":
        """Diagnose the steps so far without a validation, and return the snapshot."""
        at = self._runtime.now()
        arrived = self.wait()
        return diagnose(self._runtime, self._env_id, epoch, at=at, arrived=arrived)

    def wait(self) -> bool:
        """Wait for the statistics of the last step, at most ``limits.validation_wait_seconds``; return whether they are there."""
        with self._runtime.stopwatch.own.pause:  # a documented wait is not overhead
            return self._runtime.readback.wait(self._env_id, self._runtime.config.limits.validation_wait_seconds)

    def losses(self) -> "Losses | None":
        """Return the training losses of the current epoch that have arrived on the host; without epochs, the newest ones."""
        return self._runtime.step_processor.latest(self._env_id).losses(self._clock.epoch_ids)

    def _from_inputs(self, inputs: ValidationInputs, metered: Measured | None) -> dict[str, Any]:
        """Return the values passed by the caller, completed with those of the meter."""
        wait = self._runtime.config.limits.validation_wait_seconds
        passed: dict[str, Any] = {
            "train_accuracy": self._number("train_accuracy", inputs.train_accuracy, wait, fraction=True),
            "validation_loss": self._number("loss", inputs.loss, wait),
            "validation_accuracy": self._number("accuracy", inputs.accuracy, wait, fraction=True),
            "per_class_accuracy": self._numbers("per_class_accuracy", inputs.per_class_accuracy, wait, fraction=True),
            "per_class_loss": self._numbers("per_class_loss", inputs.per_class_loss, wait),
        }
        if metered is None:
            return passed
        known = {name: value for name, value in passed.items() if value is not None and value != {}}
        return _meter_values(metered) | known

    def _number(self, name: str, value: object, wait: float, *, fraction: bool = False) -> float | None:
        """Return an argument as a number, or None if it is missing, refused or did not arrive in time."""
        call = f"validate({name}=...)"
        if isinstance(value, str | bytes):  # float() would parse them
            self._runtime.refuse(call, f"Pass a number, not {type(value).__name__}.")
            return None
        try:
            found = number(value, wait)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # torch raises RuntimeError
            self._runtime.refuse(call, f"{str(error).rstrip('.')}.")
            return None
        if fraction and found is not None and (found < 0 or found > 1):
            self._runtime.refuse(call, f"Pass a fraction from 0 to 1, not {found:g}; {found:g} % is {found / 100:g}.")
            return None
        return found

    def _numbers(self, name: str, per_class: Any, wait: float, *, fraction: bool = False) -> dict[object, float]:
        """Return the values per class as numbers, without those that are refused or did not arrive in time."""
        if per_class is not None and not isinstance(per_class, Mapping):
            self._runtime.refuse(
                f"validate({name}=...)", f"Pass a mapping from class to value, not {type(per_class).__name__}."
            )
            return {}
        numbers = {
            each: self._number(name, value, wait, fraction=fraction) for each, value in (per_class or {}).items()
        }
        return {each: value for each, value in numbers.items() if value is not None}

    def _missing(self, inputs: ValidationInputs, metered: Measured | None, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield the names of values that were passed and are absent; those of a meter that failed are among them."""
        found = list(self._not_arrived(inputs, values))
        yield from found
        if inputs.meter is not None and metered is None:
            expected = ("validation_loss", "validation_accuracy")
            yield from (name for name in expected if values[name] is None and name not in found)

    @staticmethod
    def _not_arrived(inputs: ValidationInputs, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield the names of values that were passed, and were refused or not copied from their device in time."""
        scalars = {
            "train_accuracy": inputs.train_accuracy,
            "validation_loss": inputs.loss,
            "validation_accuracy": inputs.accuracy,
        }
        yield from (name for name, value in scalars.items() if value is not None and values[name] is None)
        for name, per_class in (
            ("per_class_accuracy", inputs.per_class_accuracy),
            ("per_class_loss", inputs.per_class_loss),
        ):
            if per_class and len(values[name] or ()) < len(per_class):
                yield name

    def _incomplete_loss(self, *, arrived: bool) -> Iterator[str]:
        """Yield ``train_loss`` if steps of the epoch were dropped or have not arrived yet."""
        if lacks_losses(self._runtime, self._env_id, self._clock.epoch_ids, arrived=arrived):
            yield "train_loss"

    def _meter_result(self, meter: "ValidationMeter | Measured | None") -> Measured | None:
        if meter is None or isinstance(meter, Measured):
            return meter
        if not callable(getattr(meter, "result", None)):
            self._runtime.refuse("validate(meter=...)", f"Pass a ValidationMeter, not {type(meter).__name__}.")
            return None
        try:
            return meter.result()
        except Exception as error:  # noqa: BLE001 - an error in a measurement must not stop the training
            self._runtime.error_boundary.fault("validation meter", error)
            return None

    def _sharpness(self, epoch: int | None, closure: Any) -> "SharpnessMeasured | None":
        if closure is not None and not callable(closure):
            self._runtime.refuse("validate(closure=...)", f"Pass a function, not {type(closure).__name__}.")
            return None
        if closure is None or not self._probe.due(epoch):
            return None
        watched = self._runtime.watches.watched(self._env_id)
        if watched is None:
            self._warn_unwatched()
            return None
        try:
            return self._probe.measure(*watched, closure)
        except Exception as error:  # noqa: BLE001 - as above; the probe has restored the model
            self._runtime.error_boundary.fault("sharpness", error)
            return None

    def _warn_unwatched(self) -> None:
        if not self._warned_unwatched:
            self._warned_unwatched = True
            _logger.warning("Sharpness is not measured: call watch(model, optimizer) before validate(closure=...).")

    def _emit(self, diagnosis: "Diagnosis", at: int) -> None:
        snapshot, runtime = diagnosis.snapshot, self._runtime
        measured = ValidationMeasured(
            env_id=self._env_id,
            epoch=snapshot.epoch,
            started=self._clock.last or at,
            time_unix_nano=at,
            loss=snapshot.validation_loss,
            accuracy=snapshot.validation_accuracy,
            train_loss=snapshot.train_loss,
            train_accuracy=snapshot.train_accuracy,
            narrative=snapshot.narrative,
            per_class_accuracy=snapshot.per_class_accuracy,
            red_flags=diagnosis.flags,
            sharpness=snapshot.sharpness,
            stability_margin=snapshot.stability_margin,
            epoch_ids=self._clock.epoch_ids,
        )
        runtime.hub.record(measured)
        runtime.emit_findings(diagnosis.changes, self._env_id)
        for kind, data in diagnosis.trends:
            severity = Severity.WARNING if kind is EventType.PERFORMANCE_DEGRADATION else Severity.INFO
            fields: dict[str, Any] = {"env_id": self._env_id, "epoch": snapshot.epoch, "time_unix_nano": at}
            runtime.send(kind, data=data, severity=severity, **fields)


def _meter_values(measured: Measured) -> dict[str, Any]:
    return {
        "validation_loss": measured.loss,
        "validation_accuracy": measured.accuracy,
        "per_class_accuracy": measured.per_class_accuracy,
        "per_class_loss": measured.per_class_loss,
        "per_class_support": measured.per_class_support,
        "confusion": measured.confusion,
        "class_names": measured.class_names,
    }


def _sharpness_values(measured: "SharpnessMeasured") -> dict[str, Any]:
    return {
        "sharpness": measured.values,
        "sharpness_error": measured.errors,
        "stability_margin": measured.stability_margin,
    }
