"""What the hooks of an optimizer need that knows nothing of a watch."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Hook = TypeVar("Hook", bound=Callable[..., Any])


def untraced(hook: Hook, owned: object = None) -> Hook:
    """Return a hook that a compiled step() leaves its graph for: traced, it would be compiled anew for each step."""
    outside: Hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    outside.__dict__["owned"] = owned
    return outside


def learning_rate(optimizer: torch.optim.Optimizer) -> torch.Tensor | float | None:
    """Return that of the first parameter group, None where it has none."""
    rate = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return rate if isinstance(rate, int | float | torch.Tensor) else None


def recording() -> bool:
    """Whether a CUDA graph is being captured: what runs now is recorded, not executed."""
    # Where CUDA has not been used, asking for it would cost more than all the rest of an unsampled step.
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return used and torch.cuda.is_current_stream_capturing()
