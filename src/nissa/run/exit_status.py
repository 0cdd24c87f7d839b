"""Exit status of the process, as far as Python code can know it while the interpreter ends.

Exit handlers are called without the exception that ends the process: the interpreter stores one that it has printed in
`sys.last_value`, but frees a `SystemExit` before. Its status is therefore noted when `sys.exit` is called. Whether that
exception has ended the process, or was caught, is seen on the outermost frame, which has then not returned.
"""

import dis
import functools
import os
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NoReturn

_BYTE: Final = 0xFF
"""An exit status of POSIX has eight bits: ``sys.exit(256)`` is a success."""
_UNCAUGHT: Final = 1


@dataclass(frozen=True, slots=True)
class RunEnd:
    """End of a run.

    Args:
        error: Type of the exception, name of the signal or ``exit status 3``; None if there was none.
        status: Exit status of the process; None if it is unknown, as where a run is closed before its process ends.
    """

    error: str | None = None
    status: int | None = None

    @classmethod
    def of_exception(cls, error: BaseException) -> "RunEnd":
        """Return the end by an exception that leaves the block of the run, or the script."""
        if isinstance(error, SystemExit):
            return cls.of_code(error.code)
        return cls(type(error).__name__, None if isinstance(error, KeyboardInterrupt) else _UNCAUGHT)

    @classmethod
    def of_code(cls, code: object) -> "RunEnd":
        """Return the end by ``sys.exit(code)``."""
        status = status_of(code)
        return cls(None if status == 0 else f"exit status {status}", status)


def status_of(code: object) -> int:
    """Return the exit status of the process after ``sys.exit(code)``.

    Example:
        >>> [status_of(code) for code in (None, 3, "a message", 256)]
        [0, 3, 1, 0]
    """
    if code is None:
        return 0
    if not isinstance(code, int):
        return 1
    return code & _BYTE if os.name == "posix" else code


class ExitWatch:
    """Notes the argument of `sys.exit` on the main thread, from its creation until `close`."""

    def __init__(self) -> None:
        self._frame = _outermost_frame() if _READABLE else None
        self._codes: list[object] = []
        self._original: Any = sys.exit
        sys.exit = self._replacement = self._noting(sys.exit)

    def _noting(self, original: Any) -> Any:
        @functools.wraps(original)
        def noting_exit(*args: Any) -> NoReturn:
            if threading.current_thread() is threading.main_thread():
                self._codes[:] = args[:1] or (None,)
            original(*args)
            raise AssertionError  # sys.exit always raises

        return noting_exit

    def close(self) -> None:
        """Restore `sys.exit`; what somebody else has replaced since stays."""
        self._frame = None
        if sys.exit is self._replacement:
            sys.exit = self._original

    def at_exit(self) -> RunEnd:
        """Return the end of the process, for an exit handler."""
        error = getattr(sys, "last_value", None)
        if error is not None:
            return RunEnd.of_exception(error)
        if self._frame is None:
            return RunEnd()
        if _has_returned(self._frame):
            return RunEnd(status=0)
        # A status is unknown after `raise SystemExit(...)`, which no function is called for.
        return RunEnd.of_code(self._codes[0]) if self._codes else RunEnd()


def _outermost_frame() -> FrameType | None:
    """Return the frame of the script itself; None on another thread than the main one."""
    if threading.current_thread() is not threading.main_thread():
        return None
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the documented way to the stack
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _has_returned(frame: FrameType) -> bool:
    """Whether the last instruction of a finished frame was a return, not one that raised."""
    return frame.f_lasti >= 0 and dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


def _probe() -> bool:
    """Whether finished frames of this interpreter show how they ended."""

    def returning() -> FrameType:
        return sys._getframe()  # noqa: SLF001 - see above

    def raising(found: list[FrameType]) -> None:
        found.append(sys._getframe())  # noqa: SLF001 - see above
        raise ValueError

    raised: list[FrameType] = []
    try:
        raising(raised)
    except ValueError:
        return _has_returned(returning()) and not _has_returned(raised[0])
    return False


_READABLE: Final = _probe()
