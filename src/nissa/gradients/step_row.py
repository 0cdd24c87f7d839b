"""Row of a step: its numbers from the end of the step until they are copied to the host."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from nissa.gradients.capture import joined
from nissa.gradients.packing import pack
from nissa.gradients.step_metadata import LOSS
from nissa.gradients.step_scalars import split_scalars
from nissa.kernels.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.gradients.capture import Sampled
    from nissa.gradients.readback import Readback
    from nissa.gradients.step_inputs import PendingStepInputs
    from nissa.gradients.step_metadata import RowMetadata, StepMetadata
    from nissa.hub.error_boundary import ErrorBoundary


class StepRow:
    """Row of one step, which may wait for a loss that is logged after the step.

    A waiting row is held by `Readback`, which sends it before a thread waits for rows. A thread that changes a waiting row takes
    it from there first, so that no other thread sends it meanwhile.

    Args:
        inputs: Values that the training loop logged for the step.
        known: Scalars on the host, those of the metadata.
        moving: Scalars that must be copied.
        waits: Whether the row waits for a loss.
        metadata: Metadata of the step, without those of the sample.
        lanes: Integers of each device that are copied with the row: digests of weights.

    Attributes:
        environment: Id of the environment.
        place: Place in the queue of rows, once the row was held back.
        expected: Names of the parameters that require a gradient, if the sample consists of several parts.
        skipped: Whether the optimizer was not called; such a step has no loss.
    """

    def __init__(  # noqa: PLR0913 - a value object; every argument is a part of the row
        self,
        readback: "Readback[RowMetadata]",
        error_boundary: "ErrorBoundary",
        *,
        inputs: "PendingStepInputs",
        known: dict[str, float],
        moving: dict[str, torch.Tensor],
        waits: bool,
        metadata: "StepMetadata",
        lanes: "Sequence[torch.Tensor]" = (),
    ) -> None:
        self.environment = metadata.env_id
        self.skipped = metadata.skipped
        self.waits = waits
        self.place: Any = None
        self.expected: tuple[str, ...] = ()
        self._readback = readback
        self._error_boundary = error_boundary
        self._inputs: PendingStepInputs | None = inputs
        self._known = known
        self._moving = moving
        self._lanes = lanes
        self._metadata = metadata
        self._samples: list[tuple[list[torch.Tensor], Sampled]] = []
        self._streams: list[torch.cuda.Stream] = []

    @property
    def on_host(self) -> bool:
        """Whether sending the row starts no work on a device, so that any thread may do it at any time."""
        return not self._streams

    def add(self, tensors: "list[torch.Tensor]", sampled: "Sampled") -> None:
        """Add the gradient statistics of some parameters."""
        self._samples.append((tensors, sampled))

    def hold(self) -> None:
        """Hold the row back until `take` or until somebody waits for rows."""
        tensors = [
            *self._moving.values(),
            *self._lanes,
            *(tensor for tensors, _ in self._samples for tensor in tensors),
        ]
        loss = None if self._inputs is None else self._inputs.total
        self._streams = _streams([*tensors, loss] if isinstance(loss, torch.Tensor) else tensors)
        self._readback.hold(self)

    def take(self) -> bool:
        """Take the row back to change it; return False if it was sent."""
        return self._readback.take(self)

    def add_loss(self, loss: "torch.Tensor | float") -> None:
        """Add a loss that is logged after the step to a row that was taken, and hold it again."""
        if self._inputs is not None:
            self._inputs.add(loss)
        self.hold()

    def send(self) -> None:
        """Start the copy to the host and queue the row. The caller holds the row: it was taken, or never held."""
        with self._error_boundary.guard("step"):
            if not self._streams:
                self._send()
                return
            with ExitStack() as streams:
                for stream in self._streams:  # another thread may send the row: keep the order of the device's work
                    streams.enter_context(torch.cuda.stream(stream))
                self._send()

    def _send(self) -> None:
        inputs, self._inputs = self._inputs, None
        if inputs is None:
            return
        known, moving, metadata = self._known, self._moving, self._metadata
        if inputs.losses:
            loss_known, loss_moving = split_scalars({LOSS: inputs.loss}, self._error_boundary)
            known.update(loss_known)
            moving.update(loss_moving)
            del loss_moving
        tensors, sampled = joined(self._samples, self.expected) if self._samples else ([], None)
        tensors, packing = pack(tensors, moving, self._lanes)
        # Drop these references before waking the worker: freeing a tensor releases the GIL, and the worker would run
        # first.
        self._moving, self._samples, self._lanes = {}, [], ()
        del inputs, moving
        metadata.sampled, metadata.packing = sampled, packing
        self._readback.submit(Transfer(tensors), metadata, hurry=self.skipped or sampled is not None, place=self.place)


def _streams(tensors: "Sequence[torch.Tensor]") -> list[torch.cuda.Stream]:
    """Return the current stream of each CUDA device that holds one of the tensors."""
    devices = dict.fromkeys(tensor.device for tensor in tensors if tensor.device.type == "cuda")
    return [torch.cuda.current_stream(device) for device in devices]
