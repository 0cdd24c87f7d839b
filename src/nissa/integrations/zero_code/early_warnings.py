"""Warnings of torch that are issued before the first step, and so before there is a run."""

import warnings
from typing import Any, Final, NamedTuple, TextIO

from nissa.run.log_capture import is_of_torch

_MOST: Final = 100
"""Maximum number of warnings to keep."""


class EarlyWarning(NamedTuple):
    """Arguments of ``warnings.showwarning``."""

    message: Warning | str
    category: type[Warning]
    filename: str
    lineno: int


class EarlyWarnings:
    """Keeps warnings of torch until they are taken. They are shown as without Nissa."""

    def __init__(self) -> None:
        self._kept: list[EarlyWarning] = []
        self._show: Any = None

    def install(self) -> None:
        """Begin to keep warnings."""
        self._show = warnings.showwarning
        warnings.showwarning = self.show_warning

    def close(self) -> None:
        """Restore ``warnings``; idempotent. What somebody else has replaced since stays."""
        if warnings.showwarning == self.show_warning:
            warnings.showwarning = self._show

    def take(self) -> list[EarlyWarning]:
        """Return the warnings, and keep no others."""
        self.close()
        kept, self._kept = self._kept, []
        return kept

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Keep a warning of torch, and show it."""
        if len(self._kept) < _MOST and is_of_torch(filename):
            self._kept.append(EarlyWarning(message, category, filename, lineno))
        self._show(message, category, filename, lineno, file, line)
