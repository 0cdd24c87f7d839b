"""A training on this rank, bare or under Nissa, and what the user's own code sees of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

import nissa
from nissa.hub.measurements import GradientsMeasured, StepMeasured
from nissa.kernels.moments import Layout, Moments, Thresholds, decode
from nissa.kernels.reference import measure
from tests.distributed.networks import Block, built
from tests.distributed.training import backward, batch, fully_sharded, line, mine

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS: Final = 5
THRESHOLDS: Final = Thresholds(vanishing=1e-3, exploding=0.05)
"""Some layers are on either side of them, so that their health is no matter of course."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the user's own code sees of one step, put together from all ranks."""

    names: tuple[str, ...]
    moments: Moments
    weight_norms: "NDArray[np.float64]"
    update_ratios: "NDArray[np.float64]"


@dataclass
class Training:
    """A model under training; `network` has the names that its parameters have in telemetry."""

    network: nn.Module
    model: nn.Module
    share: Callable[[Tensor], Tensor] = mine

    def __post_init__(self) -> None:
        """Make the optimizer, which must know the parameters as they are trained."""
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def gradients(self, step: int) -> None:
        """Make the gradients of one step, with random numbers of torch's own generator among the inputs."""
        self.optimizer.zero_grad()
        inputs = batch(8, 6, seed=100 + step)
        backward(self.model, self.share(inputs + 0.1 * torch.randn(inputs.shape, dtype=inputs.dtype)))

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that training changes on this rank."""
        state = {name: _part(value) for name, value in self.network.named_parameters()}
        for index, of_parameter in self.optimizer.state_dict()["state"].items():
            state |= {f"{index}.{name}": _part(value) for name, value in of_parameter.items()}
        return {**state, "random numbers": torch.get_rng_state()}


def unsharded() -> Training:
    """One process that has the whole batch."""
    network = built(Block)
    return Training(network, network, share=lambda whole: whole)


def replicas() -> Training:
    """The same model on all ranks."""
    network = built(Block)
    return Training(network, nn.parallel.DistributedDataParallel(network, find_unused_parameters=True))


def shards() -> Training:
    """One model in parts."""
    network = fully_sharded(built(Block), line())
    return Training(network, network)


def stage() -> Training:
    """A model of this rank's own, with a name of its own."""
    torch.manual_seed(distributed.get_rank())
    network = nn.Sequential()
    network.add_module(f"stage{distributed.get_rank()}", nn.Linear(6, 3 + distributed.get_rank()).double())
    return Training(network, network)


def bare(training: Training, clip: Callable[[], Any] | None = None) -> list[Seen]:
    """Train without Nissa."""
    return [seen for seen, _ in _steps(training, clip)]


def watched(title: str, training: Training, *, clip: float | None = None, **settings: Any) -> dict[str, Any]:
    """Train under Nissa, and return what it told beside what the user's code saw."""
    memory = nissa.MemoryBackend()
    hub = nissa.get_hub()
    with nissa.start(
        "research",
        backends=[memory],
        files__directory=f"runs/{title}",
        console__enabled=False,
        gradients__vanishing_threshold=THRESHOLDS.vanishing,
        gradients__exploding_threshold=THRESHOLDS.exploding,
        **settings,
    ) as run:
        run.watch(training.model, training.optimizer)
        clipping = None if clip is None else lambda: run.clip_grad_norm_(training.model.parameters(), clip)
        with run.epoch(0):
            told = list(_steps(training, clipping))
            run.flush()
            snapshot = run.validate(loss=1.0)
    return {
        "seen": [seen for seen, _ in told],
        "collectives": [collectives for _, collectives in told],
        "gradients": [each for each in memory.measurements if isinstance(each, GradientsMeasured)],
        "steps": [each for each in memory.measurements if isinstance(each, StepMeasured)],
        "health": snapshot.gradient_health,
        "faults": dict(hub.error_boundary.faults),
        "state": training.state(),
    }


def _steps(training: Training, clip: Callable[[], Any] | None) -> Iterator[tuple[Seen, int]]:
    """Train; with each step comes how many collectives there were during ``optimizer.step()``."""
    torch.manual_seed(7)
    for step in range(STEPS):
        training.gradients(step)
        if clip is not None:
            clip()
        names, moments = _gradients(training.network)
        before = _weights(training.network, names)
        with CommDebugMode() as collectives:  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            training.optimizer.step()
        after = _weights(training.network, names)
        norms = np.array([float(each.norm()) for each in before])
        moved = np.array([float((new - old).norm()) for old, new in zip(before, after, strict=True)])
        yield Seen(names, moments, norms, moved / norms), collectives.get_total_counts()


def _gradients(network: nn.Module) -> tuple[tuple[str, ...], Moments]:
    there = {name: _whole(each.grad) for name, each in network.named_parameters() if each.grad is not None}
    layout = Layout()
    return tuple(there), decode(measure(list(there.values()), layout, THRESHOLDS).numpy(), layout)


def _weights(network: nn.Module, names: Iterable[str]) -> list[Tensor]:
    return [_whole(network.get_parameter(name)) for name in names]


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def _part(tensor: Tensor) -> Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().clone()
