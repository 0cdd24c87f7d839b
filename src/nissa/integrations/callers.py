"""Callers further up the stack.

Trainers pass callbacks and trackers no reference to themselves, although what they hold (the loss of a step, the scaler)
has no other public source. A method of theirs is running while they call us.
"""

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

T = TypeVar("T")


def calling(kind: type[T]) -> T | None:
    """Return the innermost object of a type among the ``self`` of the callers; None without any."""
    candidates = (frame.f_locals.get("self") for frame in _frames())
    return next((candidate for candidate in candidates if isinstance(candidate, kind)), None)


def called_from(package: str) -> bool:
    """Return whether a module of a package is among the callers."""
    names = (str(frame.f_globals.get("__name__")) for frame in _frames())
    return any(name == package or name.startswith(f"{package}.") for name in names)


def _frames() -> "Iterator[FrameType]":
    """Yield the frames of the callers of this module, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack
    while frame is not None:
        yield frame
        frame = frame.f_back
