"""Thread that sends one signal's frames, so that a receiver that hangs never delays the writing of the journal."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from nissa.otel.compat import suppress_instrumentation

if TYPE_CHECKING:
    from nissa.otel.export.pipeline import Client
    from nissa.otel.otlp import SendResult

_Sent = Callable[["SendResult"], object]


class Sender:
    """Sends one payload at a time.

    Args:
        signal: Signal, for the name of the thread.
        client: OTLP client of the signal.
        sent: Called on this sender's thread with each result; must only hand it on.
    """

    def __init__(self, signal: str, client: "Client", sent: _Sent) -> None:
        self.client = client
        self._sent = sent
        self._payloads: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"nissa-send-{signal}", daemon=True)
        self._thread.start()

    def send(self, payload: bytes) -> None:
        """Send a gzip-compressed request; the result is passed to ``sent``."""
        self._payloads.put(payload)

    def close(self) -> None:
        """End the thread after the payload that it sends now."""
        self._payloads.put(None)

    def _run(self) -> None:
        suppress_instrumentation()
        while (payload := self._payloads.get()) is not None:
            self._sent(self.client.send(payload))
        self.client.close()
