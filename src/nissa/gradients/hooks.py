"""Helpers for optimizer hooks that do not depend on a watch."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Hook = TypeVar("Hook", bound=Callable[..., Any])


def untraced(hook: Hook, owned: object = None) -> Hook:
    """Return a hook that runs outside the graph of a compiled step().

    A traced hook would be recompiled at every step.
    """
    outside: Hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    outside.__dict__["owned"] = owned
    return outside


def learning_rate(optimizer: torch.optim.Optimizer) -> torch.Tensor | float | None:
    """Return the learning rate of the first parameter group, or None if it has none."""
    rate = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return rate if isinstance(rate, int | float | torch.Tensor) else None


def recording() -> bool:
    """Whether a CUDA graph is being captured, so that operations are recorded and not executed."""
    # Check for initialization first: without CUDA, the capture query costs more than the rest of an unsampled step.
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return used and torch.cuda.is_current_stream_capturing()
