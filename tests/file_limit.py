"""A process whose files cannot grow above a size: writes are short, then fail, as on a disk that becomes full."""

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.support import ROOT

_CODE = """
import json, sys
from importlib import import_module
from pathlib import Path
from tests.file_limit import set_limit

module, name, size, folder = sys.argv[1:]
task = getattr(import_module(module), name)
set_limit(int(size))
print(json.dumps(task(Path(folder))))
"""


def set_limit(size: int = resource.RLIM_INFINITY) -> None:
    """Set the limit of this process; without a size, space is freed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def with_limit(size: int, task: Callable[[Path], Any], folder: Path) -> Any:
    """Return what a function of a module returns in a process with a limit, as JSON.

    The process is forked from one without threads: a worker of the tests may have some, which could hold a lock.
    """
    arguments = [task.__module__, task.__name__, str(size), str(folder)]
    done = preloaded.run(["-c", _CODE, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
