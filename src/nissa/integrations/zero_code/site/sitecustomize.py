"""Instruments a Python process that has this folder on its ``PYTHONPATH``; see ``nissa run``.

The folder leaves `sys.path`, so that the script finds the path that it has without Nissa. It stays in the environment,
for the processes that the script starts. A ``sitecustomize`` of the user's own is run as well.
"""

import contextlib
import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path


def _instrument() -> None:
    folder = Path(__file__).parent
    sys.path[:] = [path for path in sys.path if not path or Path(path) != folder]
    with contextlib.suppress(ImportError):  # an interpreter of another environment has no Nissa
        from nissa.integrations.zero_code import instrument  # noqa: PLC0415 - after the path is restored

        instrument()


def _run_the_users_own() -> None:
    own = sys.modules.pop("sitecustomize", None)
    spec = find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        if own is not None:
            sys.modules["sitecustomize"] = own
        return
    sys.modules["sitecustomize"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


_instrument()
_run_the_users_own()
