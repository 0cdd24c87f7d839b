"""Clipping of an ``Accelerator``, with the norm before it."""

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nissa.run.run import Run


def clipping(accelerator: Any, run: "Callable[[], Run | None]") -> Callable[..., Any]:
    """Return ``accelerator.clip_grad_norm_`` that logs the norm.

    An infinite limit is no clipping: trainers pass it to compute the norm alone.

    Args:
        accelerator: An ``accelerate.Accelerator``.
        run: Returns the run; None after its end.
    """
    clip = accelerator.clip_grad_norm_

    def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: float = 2) -> Any:
        norm = clip(parameters, max_norm, norm_type)
        active = run()
        if norm is not None and isfinite(max_norm) and active is not None and not active.closed:
            active.log_clip(norm, max_norm)
        return norm

    return clip_grad_norm_
