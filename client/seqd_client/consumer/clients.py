"""The classes that a consumer uses: blocking ones, each for one thread, and asyncio ones, each for one event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

import zmq
import zmq.asyncio

from seqd_client.consumer.session import POLL_S, Ask, Delivery, Session, Wait, read_answer, read_status
from seqd_client.keys import ClientKeys
from seqd_client.sockets import connect
from seqd_client.status import Status
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message, StatusQuery

POLL_MS = int(POLL_S * 1000)


AnySocket = TypeVar("AnySocket", bound="zmq.Socket[Any]")
"""The kind of socket that a context makes: blocking, or for asyncio."""


class _Connection(Generic[AnySocket]):
    """A socket to a daemon in a context of its own."""

    def __init__(self, context: zmq.Context[AnySocket], kind: int, endpoint: str, keys: ClientKeys | None) -> None:
        self._context, self._kind, self._keys = context, kind, keys
        self.endpoint = endpoint
        self._open()

    def _open(self) -> None:
        self._socket = self._context.socket(self._kind)
        self._socket.setsockopt(zmq.LINGER, 0)
        if self._kind == zmq.SUB:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        connect(self._socket, self.endpoint, keys=self._keys)

    def _reopen(self) -> None:
        """Open another socket, so that a late answer is not mistaken for the answer to the next request."""
        self._socket.close()
        self._open()

    def _close(self) -> None:
        self._socket.close()
        self._context.term()


class ControlClient(_Connection["zmq.Socket[bytes]"]):
    """Asks a daemon over its control socket.

    Parameters
    ----------
    endpoint : the daemon's ``control.endpoint``, such as ``ipc:///run/seqd/control``.
    timeout_s : seconds to wait for an answer.
    keys : the client's keys for an address on another machine.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, keys: ClientKeys | None = None) -> None:
        super().__init__(zmq.Context(), zmq.DEALER, endpoint, keys)
        self._timeout_s = timeout_s

    def ask(self, request: Message, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """Send a request and wait for its answer and the payload; ``timeout_s`` replaces the client's timeout.

        Raises
        ------
        UnreachableError : no daemon of this version answered in time.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return read_answer(self.endpoint, self._exchange(request, timeout_s), timeout_s)

    def status(self) -> Status:
        """Ask for the daemon's status.

        Raises
        ------
        UnreachableError : no daemon of this version answered in time.
        """
        return read_status(*self.ask(StatusQuery()))

    def _exchange(self, request: Message, timeout_s: float) -> list[bytes] | None:
        parts = None
        try:
            self._socket.send_multipart(encode(request))
            if self._socket.poll(int(timeout_s * 1000)):
                parts = self._socket.recv_multipart()
        finally:
            if parts is None:
                self._reopen()
        return parts

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class CallsStream(_Connection["zmq.Socket[bytes]"]):
    """The committed calls of a daemon: for every tile the template, then all its cycles in order.

    With control requests the stream fetches messages that were published before the consumer connected, or were lost.

    Parameters
    ----------
    calls : the daemon's ``stream.calls``, such as ``ipc:///run/seqd/calls``.
    control : a client of the same daemon.
    keys : the consumer's keys for an address on another machine.
    """

    def __init__(self, calls: str, control: ControlClient, *, keys: ClientKeys | None = None) -> None:
        super().__init__(zmq.Context(), zmq.SUB, calls, keys)
        self._control, self._session = control, Session(calls, control.endpoint)

    def messages(self, *, timeout_s: float) -> Iterator[tuple[Message, bytes]]:
        """Yield templates, calls and events with their payloads until the run ends.

        Called again, it follows the same run if the daemon continues it, else the next run.

        Parameters
        ----------
        timeout_s : seconds for which the daemon may neither publish nor answer. If it is restarted within this time,
            the stream continues. There is no limit while the daemon answers requests but publishes nothing.

        Raises
        ------
        UnreachableError : for this time the daemon did not answer, or refused to replay committed calls.
        MissedError : the daemon began another run before all calls of this one were delivered.
        """
        for step in self._session.steps(timeout_s):
            match step:
                case Ask(request, wait_s):
                    self._session.reply = self._control._exchange(request, wait_s)
                case Wait.STREAM:
                    self._session.reply = self._socket.recv_multipart() if self._socket.poll(POLL_MS) else None
                case Wait.PAUSE:
                    time.sleep(POLL_S)
                case Delivery():
                    yield step

    def __enter__(self) -> "CallsStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class AsyncControlClient(_Connection[zmq.asyncio.Socket]):
    """:class:`ControlClient` for asyncio; many tasks may ask at once."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, keys: ClientKeys | None = None) -> None:
        super().__init__(zmq.asyncio.Context(), zmq.DEALER, endpoint, keys)
        self._timeout_s, self._asking = timeout_s, asyncio.Lock()

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """See :meth:`ControlClient.ask`."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return read_answer(self.endpoint, await self._exchange(request, timeout_s), timeout_s)

    async def status(self) -> Status:
        """See :meth:`ControlClient.status`."""
        return read_status(*await self.ask(StatusQuery()))

    async def _exchange(self, request: Message, timeout_s: float) -> list[bytes] | None:
        parts = None
        async with self._asking:
            try:
                await self._socket.send_multipart(encode(request))
                if await self._socket.poll(int(timeout_s * 1000)):
                    parts = await self._socket.recv_multipart()
            finally:
                if parts is None:
                    self._reopen()
        return parts

    async def __aenter__(self) -> "AsyncControlClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()


class AsyncCallsStream(_Connection[zmq.asyncio.Socket]):
    """:class:`CallsStream` for asyncio."""

    def __init__(self, calls: str, control: AsyncControlClient, *, keys: ClientKeys | None = None) -> None:
        super().__init__(zmq.asyncio.Context(), zmq.SUB, calls, keys)
        self._control, self._session = control, Session(calls, control.endpoint)

    async def messages(self, *, timeout_s: float) -> AsyncIterator[tuple[Message, bytes]]:
        """See :meth:`CallsStream.messages`."""
        for step in self._session.steps(timeout_s):
            match step:
                case Ask(request, wait_s):
                    self._session.reply = await self._control._exchange(request, wait_s)
                case Wait.STREAM:
                    ready = await self._socket.poll(POLL_MS)
                    self._session.reply = await self._socket.recv_multipart() if ready else None
                case Wait.PAUSE:
                    await asyncio.sleep(POLL_S)
                case Delivery():
                    yield step

    async def __aenter__(self) -> "AsyncCallsStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
