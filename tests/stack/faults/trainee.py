"""The training that a fault meets, started through each of Nissa's entry points."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests import preloaded
from tests.support import until

START, RUN_COMMAND, INSTRUMENT = "nissa.start()", "nissa run", "opentelemetry-instrument"
DOORS: Final = (START, RUN_COMMAND, INSTRUMENT)
BARE: Final = "bare"
"""No entry point: a training without telemetry."""
APPLICATION: Final = "the application's own providers"

_BIN = Path(sys.executable).parent
_SCRIPT = Path(__file__).parents[1] / "trainers" / "faulted.py"
_TORCHRUN: Final = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0")


class Trainee:
    """A training process, and what it notes.

    Attributes:
        process: The process; of ``torchrun`` where there are ranks.
        notes: Its notes so far, oldest first.
        errors: Lines of its standard error.
    """

    def __init__(self, process: Any, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.notes: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self._note)),
            threading.Thread(target=self._read, args=(process.stderr, self.errors.append)),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, take: Any) -> None:
        for line in stream:
            take(line)

    def _note(self, line: str) -> None:
        if line.startswith('{"note"'):
            self.notes.append(json.loads(line))

    @property
    def lives(self) -> list[dict[str, Any]]:
        """Seeds that have ended."""
        return [note for note in self.notes if note["note"] == "life"]

    def await_lives(self, more: int) -> None:
        """Wait until so many more seeds have ended."""
        wanted = len(self.lives) + more

        def enough() -> bool:
            assert self.process.poll() is None, "".join(self.errors)
            return len(self.lives) >= wanted

        until(enough, f"{wanted} seeds", 180)

    def end(self) -> None:
        """Let it end as it was told to."""
        (self.folder / "end").touch()

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end; return the exit status."""
        status: int = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        return status

    @property
    def seconds(self) -> list[float]:
        """Durations of its steps, after a regular end."""
        (found,) = [note["seconds"] for note in self.notes if note["note"] == "end"]
        return list(found)


def _listen_to_interrupts() -> None:
    """Undo what a shell does that starts the tests in the background: Python then installs no handler for SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def training(
    door: str, folder: Path, environ: Mapping[str, str], end: str = "regular", *more: str, ranks: bool = False
) -> Iterator[Trainee]:
    """Yield a training that has begun through a door; it is killed if the block does not end it."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = {START: "start", BARE: "bare"}.get(door, "observed")
    script = [str(_SCRIPT), mode, end, *more]
    process: Any
    if mode != "observed" and not ranks:
        process = preloaded.start(script, cwd=folder, env=environ)
    else:
        launched = [*(_TORCHRUN if ranks else ()), *script]
        # `python -u` as interpreter option has no equivalent with `nissa run`; notes are written unbuffered anyway.
        command = {
            RUN_COMMAND: [str(_BIN / "nissa"), "run", *launched],
            INSTRUMENT: [str(_BIN / "opentelemetry-instrument"), sys.executable, *launched],
        }.get(door, [sys.executable, *launched])
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environ, "PATH": f"{_BIN}{os.pathsep}{environ.get('PATH', '')}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_listen_to_interrupts,  # noqa: PLW1509 - it only resets a signal
        )
    found = Trainee(process, folder)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        found.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def deliver_leftovers(folder: Path, environ: Mapping[str, str]) -> str:
    """Start a later run with the same destination, which sends what earlier ones left; return what it logs."""
    code = "import nissa\nwith nissa.start('minimal', console__enabled=False) as run:\n    assert run.flush(60)"
    done = preloaded.run(["-c", code], cwd=folder, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr
