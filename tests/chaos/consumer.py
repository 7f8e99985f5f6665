"""A consumer that remembers what it was told of: a committed tile-cycle must outlive everything."""

import zlib
from types import TracebackType

import zmq
from seqd_client.wire.codec import decode
from seqd_client.wire.messages import Calls

from tests.chaos.ledger import Key


class Consumer:
    """Listens to the calls of one run's daemons, one after the other."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"calls")
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self.told: dict[Key, int] = {}
        """CRC-32 of the calls of every tile-cycle that was told of."""
        self.twice: list[Key] = []
        """Told of again."""

    def listen(self, timeout_s: float) -> None:
        """Take in what comes, until nothing does for a while."""
        while self._socket.poll(int(timeout_s * 1000)):
            message, payload = decode(self._socket.recv_multipart())
            if isinstance(message, Calls):
                key = (message.lane, message.tile, message.cycle)
                if key in self.told:
                    self.twice.append(key)
                self.told[key] = zlib.crc32(payload)

    def __enter__(self) -> "Consumer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
