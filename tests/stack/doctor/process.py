"""Runs ``nissa doctor`` in a process of its own, and servers that answer what a test wants."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any

import trustme

from scripts.stack_settings import LOOPBACK
from tests.stack.variables.small_run import run_script

_BODY = """
import sys
sys.argv = {argv!r}
from nissa.cli import main
main()
"""


@dataclass(frozen=True)
class Said:
    """What the doctor said."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.out)
        return report

    def findings(self, check: str, level: str | None = None) -> list[dict[str, Any]]:
        return [each for each in self.report["findings"] if each["check"] == check and level in (None, each["level"])]

    def only(self, check: str, level: str) -> dict[str, Any]:
        (found,) = self.findings(check, level)
        return found


@dataclass(frozen=True)
class Certificates:
    """Those of an authority that is asked for, and those of another one."""

    folder: Path
    authority: trustme.CA

    @property
    def trust(self) -> str:
        return str(self.folder / "ca.pem")


Doctor = Callable[..., Said]
"""`consult`, in a folder of the test's own."""


def consult(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None, json_output: bool = True) -> Said:
    """Run it; whatever it finds, no traceback is shown."""
    folder.mkdir(exist_ok=True)
    argv = ["nissa", "doctor", *arguments, *(["--json"] if json_output else [])]
    began = monotonic()
    status, out, err = run_script(_BODY.format(argv=argv), folder, environ or {})
    assert "Traceback" not in out + err
    return Said(status, out, err, monotonic() - began)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.probed.append(dict(self.headers))  # type: ignore[attr-defined]
        self.send_response_only(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Date", formatdate(time() + self.server.skew, usegmt=True))  # type: ignore[attr-defined]
        for name, value in self.server.headers.items():  # type: ignore[attr-defined]
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def server(
    status: int, *, skew: float = 0, headers: Mapping[str, str] | None = None
) -> Iterator[http.server.ThreadingHTTPServer]:
    found = http.server.ThreadingHTTPServer((LOOPBACK, 0), _Handler)
    found.status, found.skew, found.probed = status, skew, []  # type: ignore[attr-defined]
    found.headers = dict(headers or {})  # type: ignore[attr-defined]
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
