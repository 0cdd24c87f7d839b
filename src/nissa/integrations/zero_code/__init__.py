"""Telemetry of scripts that do not mention Nissa: ``nissa run`` and ``opentelemetry-instrument``.

`instrument` imports nothing but the standard library. The rest is imported once the script has imported torch.
"""

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nissa.integrations.zero_code.import_hook import ImportHook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nissa.integrations.zero_code.observer import Observer

_logger = logging.getLogger("nissa")

SITE: Final = Path(__file__).with_name("site")
"""Folder on ``PYTHONPATH`` whose ``sitecustomize`` calls `instrument` in a process and in those that it starts."""

_active: "_Instrumentation | None" = None


class _Instrumentation:
    """Observer of this process, installed when torch is imported."""

    def __init__(self) -> None:
        self._observer: Observer | None = None
        self._hook = ImportHook("torch", self._install)

    def install(self) -> None:
        self._hook.install()

    def _install(self) -> None:
        try:
            observer = import_module("nissa.integrations.zero_code.observer").Observer()
            observer.install()
        except Exception:  # an import of the script must not fail because of us
            _logger.exception("This process is not observed.")
            return
        self._observer = observer

    def remove(self) -> None:
        self._hook.remove()
        if self._observer is not None:
            self._observer.uninstall()


def instrument() -> None:
    """Observe optimizers, losses and epochs of this process from its first step on; idempotent.

    torch is not imported: an import hook waits for the script to do so.
    """
    global _active  # noqa: PLW0603 - the interpreter is instrumented once
    if _active is None:
        _active = _Instrumentation()
        _active.install()


def uninstrument() -> None:
    """End the run that was started here, and restore everything that `instrument` has changed."""
    global _active
    active, _active = _active, None
    if active is not None:
        active.remove()


def instrumented_environment(environ: "Mapping[str, str]") -> dict[str, str]:
    """Return environment variables with which Python processes call `instrument` when they start."""
    paths = [str(SITE), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
