"""A run whose gradients are known, to hold against what Prometheus and Jaeger say about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.stack import Stack
from tests.stack.queries import Past
from tests.stack.training import Transport, environment, once, service_name, train

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Truth:
    """A run, and the gradients that its optimizer used.

    Args:
        service: Its service.
        past: Prometheus at its end.
        magnitudes: Absolute values per parameter, a row per step.
    """

    service: str
    past: Past
    magnitudes: "dict[str, NDArray[np.float64]]"


def known_run(stack: Stack, folder: Path, transport: Transport) -> Truth:
    """Return the run that was sent that way; it is made once."""

    def make() -> list[str]:
        service = service_name("gradients")
        path = folder / f"{service}.npz"
        train("gradients", folder, environment(stack, transport, service), str(path))
        return [service, str(path)]

    made = once(folder, stack, f"gradients-{transport}", make)
    service, path = made.told
    with np.load(path) as kept:
        return Truth(service, made.past, {name: kept[name] for name in kept.files})
