"""Ports and folders of the stack."""

import os
import socket
from collections.abc import Container
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
CONFIG: Final = ROOT / "collector-config"
LOOPBACK: Final = "127.0.0.1"
SERVERS: Final = ("prometheus", "jaeger", "collector")
"""In the order in which they start; they stop in the opposite one."""


class StackError(Exception):
    """The stack cannot execute the command; the message contains the remedy."""


def cache() -> Path:
    """Return the cache folder of this machine: ``STACK_CACHE``, else ``nissa`` in the user's cache."""
    own = os.environ.get("STACK_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(users) / "nissa"


def pinned() -> dict[str, str]:
    """Return the settings in ``.env``; environment variables override them, as in Docker."""
    lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: os.environ.get(name, value) for name, value in pairs}


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on the loopback address."""

    otlp_grpc: int
    otlp_http: int
    collector_health: int
    prometheus: int
    jaeger: int
    grafana: int
    jaeger_otlp: int
    jaeger_grpc: int
    jaeger_health: int

    @classmethod
    def usual(cls) -> Self:
        """Return the ports in ``.env``."""
        values = pinned()
        return cls(**{field.name: int(values[_variable(field.name)]) for field in fields(cls)})

    @classmethod
    def free(cls) -> Self:
        """Return ports that are not in use."""
        with ExitStack() as stack:
            sockets = {field.name: stack.enter_context(socket.socket()) for field in fields(cls)}
            for each in sockets.values():
                each.bind((LOOPBACK, 0))
            return cls(**{name: each.getsockname()[1] for name, each in sockets.items()})

    def variables(self) -> dict[str, str]:
        """Return the ports by their variables in ``.env``."""
        return {_variable(name): str(port) for name, port in asdict(self).items()}

    def taken(self, *, without: Container[str] = ()) -> list[str]:
        """Return the variables of the ports that are in use."""
        return [_variable(name) for name, port in asdict(self).items() if name not in without and _listens(port)]


def _variable(name: str) -> str:
    return f"STACK_{name.upper()}_PORT"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
