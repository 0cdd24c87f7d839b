"""Implementation of ``validate()``: collect observations, diagnose them, and emit the results."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nissa.diagnostics.layers import layers_of, medians
from nissa.diagnostics.meter import Measured
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.sharpness.probe import SharpnessProbe
from nissa.events import EventType, Severity
from nissa.hub.measurements import ValidationMeasured
from nissa.kernels.transfer import number

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from nissa.diagnostics.meter import ValidationMeter
    from nissa.diagnostics.sharpness.measured import SharpnessMeasured
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.diagnostics.tracker import Diagnosis
    from nissa.gradients.step_processor import Losses
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
        self._unwatched = False

    def __call__(self, epoch: int | None, inputs: ValidationInputs) -> "EpochSnapshot":
        """Diagnose one validation, emit the results, and return the snapshot."""
        at = self._runtime.now()
        # These calls wait for the device by design, so the time does not count as overhead.
        with self._runtime.stopwatch.own.pause:
            # Read the meter first: once its copy has arrived, the device has computed the values read below as well.
            metered = self._metered(inputs.meter)
            arrived = self._runtime.readback.wait(self._env_id, self._runtime.config.limits.validation_wait_seconds)
            found = self._from_inputs(inputs, metered)
        sharpness = self._sharpness(epoch, inputs.closure)
        seen = Observations(
            epoch=epoch,
            env_id=self._env_id,
            time_unix_nano=at,
            seeds=self._runtime.validated(self._env_id, found["validation_accuracy"], at),
            incomplete=(*self._unread(inputs, found), *self._partial(arrived=arrived)),
            **self._measured(),
            **found,
            **({} if sharpness is None else _curvature(sharpness)),
        )
        diagnosis = self._runtime.tracker(self._env_id).diagnose(seen)
        self._emit(diagnosis, at)
        return diagnosis.snapshot

    def losses(self) -> "Losses | None":
        """Return the training losses of the current epoch that have arrived on the host."""
        ids = self._clock.epoch_ids
        return self._runtime.step_processor.latest(self._env_id).epochs.get(ids.span_id if ids else 0)

    def _measured(self) -> dict[str, Any]:
        """Return the observations that come from watched steps."""
        runtime, losses = self._runtime, self.losses()
        latest, gradients = runtime.step_processor.latest(self._env_id), runtime.config.gradients
        quantiles = dict(zip(gradients.percentiles, gradients.quantiles, strict=True))
        layers = layers_of(list(latest.by_model.values()), quantiles)
        return {
            "step": latest.step,
            "learning_rate": latest.learning_rate,
            "train_loss": losses.mean if losses else None,
            "loss_noise": losses.noise if losses else None,
            "gradient_health": latest.health(),
            "gradient_stats": layers,
            "gradient_percentiles": medians(layers),
            "seed_ratios": latest.ratios(),
        }

    def _from_inputs(self, inputs: ValidationInputs, metered: Measured | None) -> dict[str, Any]:
        """Return the values passed by the caller, completed with those of the meter."""
        wait = self._runtime.config.limits.validation_wait_seconds
        given: dict[str, Any] = {
            "train_accuracy": number(inputs.train_accuracy, wait),
            "validation_loss": number(inputs.loss, wait),
            "validation_accuracy": number(inputs.accuracy, wait),
            "per_class_accuracy": _numbers(inputs.per_class_accuracy, wait),
            "per_class_loss": _numbers(inputs.per_class_loss, wait),
        }
        if metered is None:
            return given
        return _of_meter(metered) | {name: each for name, each in given.items() if each is not None and each != {}}

    @staticmethod
    def _unread(inputs: ValidationInputs, found: Mapping[str, Any]) -> Iterator[str]:
        """Yield the names of values that were passed but not copied from their device in time."""
        given = {
            "train_accuracy": inputs.train_accuracy,
            "validation_loss": inputs.loss,
            "validation_accuracy": inputs.accuracy,
        }
        yield from (name for name, value in given.items() if value is not None and found[name] is None)
        for name, values in (
            ("per_class_accuracy", inputs.per_class_accuracy),
            ("per_class_loss", inputs.per_class_loss),
        ):
            if values and len(found[name] or ()) < len(values):
                yield name

    def _partial(self, *, arrived: bool) -> Iterator[str]:
        """Yield ``train_loss`` if steps of the epoch were dropped or have not arrived yet."""
        losses = self.losses()
        if not arrived or (losses is not None and losses.missed):
            yield "train_loss"

    def _metered(self, meter: "ValidationMeter | Measured | None") -> Measured | None:
        if meter is None or isinstance(meter, Measured):
            return meter
        try:
            return meter.result()
        except Exception as error:  # noqa: BLE001 - a mistake in measuring costs the measurement, never the training
            self._runtime.error_boundary.fault("validation meter", error)
            return None

    def _sharpness(self, epoch: int | None, closure: "Callable[[], torch.Tensor] | None") -> "SharpnessMeasured | None":
        if closure is None or not self._probe.due(epoch):
            return None
        watched = self._runtime.watched(self._env_id)
        if watched is None:
            self._warn_unwatched()
            return None
        try:
            return self._probe.measure(*watched, closure)
        except Exception as error:  # noqa: BLE001 - as above; the probe has restored everything
            self._runtime.error_boundary.fault("sharpness", error)
            return None

    def _warn_unwatched(self) -> None:
        if not self._unwatched:
            self._unwatched = True
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
            about: dict[str, Any] = {"env_id": self._env_id, "epoch": snapshot.epoch, "time_unix_nano": at}
            runtime.send(kind, data=data, severity=severity, **about)


def _of_meter(found: Measured) -> dict[str, Any]:
    return {
        "validation_loss": found.loss,
        "validation_accuracy": found.accuracy,
        "per_class_accuracy": found.per_class_accuracy,
        "per_class_loss": found.per_class_loss,
        "per_class_support": found.per_class_support,
        "confusion": found.confusion,
        "class_names": found.class_names,
    }


def _curvature(found: "SharpnessMeasured") -> dict[str, Any]:
    return {
        "sharpness": found.values,
        "sharpness_error": found.errors,
        "stability_margin": found.stability_margin,
    }


def _numbers(given: Mapping[Any, Any] | None, wait: float) -> dict[object, float]:
    read = {name: number(value, wait) for name, value in (given or {}).items()}
    return {name: value for name, value in read.items() if value is not None}
