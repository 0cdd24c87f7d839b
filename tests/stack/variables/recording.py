"""A door in front of another that keeps what clients say."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scripts.stack_settings import LOOPBACK


class Recording:
    """What went through the door.

    Attributes:
        port: Where the door is.
        said: All that clients said, as it was on the wire.
    """

    def __init__(self, server: socket.socket, target: int) -> None:
        self.port: int = server.getsockname()[1]
        self.said = b""
        self._target = target
        self._server = server

    def serve(self) -> None:
        """Pass connections on until the server is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                to = socket.create_connection((LOOPBACK, self._target))
                threading.Thread(target=self._pass, args=(client, to, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(to, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.said += data if keep else b""
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def recording(target: int) -> Iterator[Recording]:
    """Yield a door in front of a port."""
    with socket.create_server((LOOPBACK, 0)) as server:
        found = Recording(server, target)
        threading.Thread(target=found.serve, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)
