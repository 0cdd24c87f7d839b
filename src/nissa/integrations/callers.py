"""Object whose method is running further up the stack.

Trainers pass callbacks and trackers no reference to themselves, although what they hold (the loss of a step, the scaler)
has no other public source. A method of theirs is running while they call us.
"""

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import FrameType

T = TypeVar("T")


def calling(kind: type[T]) -> T | None:
    """Return the innermost object of a type among the ``self`` of the callers; None without any."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, kind):
            return candidate
        frame = frame.f_back
    return None
