"""Processes that start with PyTorch at hand.

To import it and build a first optimizer takes some six seconds of a core, and the tests of the variables need many
processes. So one imports it and forks the others, each of which imports OpenTelemetry and Nissa anew, under its own
variables, and ends as interpreters do.
"""

import json
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Self

PATIENCE = 90
"""Seconds that a process may take."""

_IN_THE_WAY = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where they are set, the HTTP exporter does not look at certificates of its own."""


class Nursery:
    """Starts processes, one at a time."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery_process.py"))],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, body: str, folder: Path, environ: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a script in a folder, with variables besides those of the caller; return status, output and errors."""
        path = folder / "script.py"
        path.write_text(textwrap.dedent(body))
        inherited = {name: value for name, value in os.environ.items() if name not in _IN_THE_WAY}
        told = {"script": str(path), "folder": str(folder), "environ": {**inherited, **environ}}
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(told).encode() + b"\n")
        self._parent.stdin.flush()
        ready, _, _ = select.select([self._parent.stdout], [], [], PATIENCE)
        assert ready, f"the script has not ended after {PATIENCE} s"
        status = int(self._parent.stdout.readline())
        return status, (folder / "stdout").read_text(), (folder / "stderr").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=PATIENCE)
