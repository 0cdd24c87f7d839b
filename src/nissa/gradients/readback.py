"""The only place that waits for a device, and it does so on a thread of its own.

A `Transfer` is begun on the training thread: on CUDA an asynchronous copy into pinned memory with an event behind it,
elsewhere nothing at all. The `Reader` takes transfers in order, waits for each, and hands the numbers on.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
import torch

from nissa.hub.mailbox import Mailbox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.hub.containment import Containment

T = TypeVar("T")

_NUMPY: Final = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32}

_POLL_SECONDS: Final = 0.0002

_PATIENCE_SECONDS: Final = 2.0
"""For how long at most the reader leaves numbers that are in no hurry."""

_MOST_LEFT: Final = 64
"""How many of them at most."""


class Transfer:
    """Tensors on their way to the host.

    Args:
        tensors: Owned by the transfer from now on; at most one per device.
    """

    __slots__ = ("_events", "_hosts")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._events: list[Any] = []
        self._hosts = [self._begin(tensor) for tensor in tensors]

    def _begin(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cuda":
            return tensor
        # torch's host allocator recycles pinned blocks, so this allocates only until the pipeline is full.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        event.record(torch.cuda.current_stream(tensor.device))
        self._events.append(event)
        return host

    def ready(self) -> bool:
        """Whether the numbers are on the host; never waits."""
        return all(event.query() for event in self._events)

    def arrays(self, timeout: float | None = None) -> "list[NDArray[np.generic]]":
        """Return the numbers, waiting for them.

        Raises:
            TimeoutError: They did not come within ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self.ready():
            if deadline is not None and monotonic() > deadline:
                raise TimeoutError("The device has not finished the step whose gradients were asked for.")
            sleep(_POLL_SECONDS)
        return [host.cpu().numpy() for host in self._hosts]


def number(value: object, timeout: float) -> float | None:
    """Return a number that the caller gave, reading it from its device where it is a tensor.

    Returns None where there is none, or where the device did not finish within ``timeout`` seconds.
    """
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        return float(value)  # type: ignore[arg-type]  # whatever float() takes; what it refuses is the caller's mistake
    if value.numel() != 1:
        raise ValueError(f"Expected one number, not a tensor of shape {tuple(value.shape)}; give its mean.")
    try:
        (array,) = Transfer([value.detach().reshape(1).to(torch.float64)]).arrays(timeout)
    except TimeoutError:
        return None
    return float(array[0])


def on_host(value: torch.Tensor) -> float | None:
    """Return a number that is in the host's memory already; None where it has to travel like those of a device.

    Read as an array: that is no operation of torch's, each of which costs tens of microseconds between two steps.
    """
    # Of a subclass, or within a transform of torch's, there may be no array; nor of a number whose sign is in a bit of its own.
    plain = type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype in _NUMPY
    return float(value.numpy().item()) if plain and not value.requires_grad and not value.is_neg() else None


def side_by_side(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the columns of two tensors of as many rows, on the same device."""
    if left.device.type != "cpu":
        return torch.cat([left, right], dim=1)
    return torch.from_numpy(np.concatenate((left.numpy(), right.numpy()), axis=1))  # torch would wake its threads


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    transfer: Transfer
    note: T


class Reader(Generic[T]):
    """Waits for transfers in order and hands each on with the note that came with it.

    Args:
        deliver: Called on the reader's thread with the note and its arrays.
        capacity: How many transfers wait at most; beyond it the oldest gives way and is counted in `dropped`.
        containment: Catches what goes wrong on the reader's thread.
    """

    def __init__(
        self,
        deliver: "Callable[[T, list[NDArray[np.generic]]], None]",
        *,
        capacity: int,
        containment: "Containment",
    ) -> None:
        self.dropped = 0
        self._most_left = min(_MOST_LEFT, capacity // 2)
        self._deliver = deliver
        self._containment = containment
        self._mailbox: Mailbox[_Job[T] | threading.Event | None] = Mailbox(capacity=capacity, reserve=1_000)
        self._thread = threading.Thread(target=self._run, name="nissa-readback", daemon=True)
        self._thread.start()

    def submit(self, transfer: Transfer, note: T, *, hurry: bool = True) -> None:
        """Queue a transfer without waiting.

        Args:
            transfer: Begun already.
            note: What it comes with.
            hurry: Whether the reader is told at once. To wake a thread costs more than to read a few numbers, and it
                then takes the interpreter from training; else it reads those of several steps together.
        """
        hurry = hurry or len(self._mailbox) >= self._most_left
        if self._mailbox.put(_Job(transfer, note), keep=False, wake=hurry) is not None:
            self.dropped += 1

    def flush(self, timeout: float) -> bool:
        """Wait until everything submitted so far was handed on; whether it was in time."""
        reached = threading.Event()
        self._mailbox.put(reached, keep=True)
        return reached.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Hand on what was submitted and end the thread; whether that was in time."""
        self._mailbox.put(None, keep=True)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                job = self._mailbox.get(_PATIENCE_SECONDS)
            except queue.Empty:  # it looks again, for what it was not told of
                continue
            if job is None:
                return
            if isinstance(job, threading.Event):
                job.set()
                continue
            with self._containment.guard("gradient readback"):
                self._deliver(job.note, job.transfer.arrays())
