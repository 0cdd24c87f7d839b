"""Thread that sends one signal's frames, so that a receiver that hangs never delays the writing of the journal."""

import threading
import zlib
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from nissa.otel.compat import suppress_instrumentation
from nissa.otel.otlp.client import LARGEST_REQUEST
from nissa.otel.otlp.outcome import Outcome, SendResult

if TYPE_CHECKING:
    from nissa.otel.export.pipeline import Client

_Sent = Callable[[SendResult], object]


class Sender:
    """Sends one request at a time.

    Args:
        signal: Signal, for the name of the thread.
        client: OTLP client of the signal.
        sent: Called on this sender's thread with each result; must only hand it on.
    """

    def __init__(self, signal: str, client: "Client", sent: _Sent) -> None:
        self.client = client
        self._sent = sent
        self._payloads: SimpleQueue[Sequence[bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"nissa-send-{signal}", daemon=True)
        self._thread.start()

    def send(self, payloads: Sequence[bytes]) -> None:
        """Send gzip-compressed requests as one; the result is passed to ``sent``."""
        self._payloads.put(payloads)

    def close(self) -> None:
        """End the thread after the request that it sends now."""
        self._payloads.put(None)

    def _run(self) -> None:
        suppress_instrumentation()
        while (payloads := self._payloads.get()) is not None:
            self._sent(self._result(payloads))
        self.client.close()

    def _result(self, payloads: Sequence[bytes]) -> SendResult:
        """Send a single request as it is stored, and several as one.

        Serialized messages that follow one another are their merged message, whose lists are joined (Protocol Buffers,
        "Encoding", "Last One Wins"). gzip data can be joined too, but not every receiver reads several members of it.
        """
        if len(payloads) == 1:
            return self.client.send(payloads[0])
        try:
            joined = b"".join(map(_content, payloads))
        except (EOFError, zlib.error) as error:
            return SendResult(Outcome.REFUSED, f"the payload is not a request ({type(error).__name__})")
        return self.client.send(joined, gzipped=False)


def _content(payload: bytes) -> bytes:
    """Return the content of gzip data.

    Raises:
        EOFError: It is cut off, or larger than any request: what an earlier process has left may be damaged.
        zlib.error: It is not gzip data.
    """
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = stream.decompress(payload, LARGEST_REQUEST)
    if not stream.eof:
        raise EOFError
    return content
