"""Clients for programs in asyncio; each for one event loop."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType

import zmq.asyncio

from seqd_client.consumer.answers import read_answer, read_published, read_status
from seqd_client.consumer.connection import POLL_S, REPEAT_S, given_up, no_answer, open_calls, open_control, refused
from seqd_client.consumer.following import Following
from seqd_client.errors import UnreachableError
from seqd_client.keys import ClientKeys
from seqd_client.status import Status
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message, Refused, StatusQuery


class AsyncControlClient:
    """Asks a daemon over its control socket."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._timeout_s, self._keys = endpoint, timeout_s, keys
        self._context = zmq.asyncio.Context()
        self._socket = open_control(self._context, endpoint, keys)
        self._asking = asyncio.Lock()

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """Send a request and wait for its answer; without a time, for as long as the client does.

        Raises
        ------
        UnreachableError : no daemon answered in time.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        async with self._asking:
            try:
                await self._socket.send_multipart(encode(request))
                if not await self._socket.poll(int(timeout_s * 1000)):
                    raise no_answer(self._endpoint, timeout_s)
                parts = await self._socket.recv_multipart()
            except BaseException:
                # An answer that comes too late must not be taken for the next one.
                self._socket.close()
                self._socket = open_control(self._context, self._endpoint, self._keys)
                raise
        return read_answer(self._endpoint, parts)

    async def status(self) -> Status:
        """The daemon's status.

        Raises
        ------
        UnreachableError : no daemon of this version answered in time.
        """
        return read_status(*await self.ask(StatusQuery()))

    async def __aenter__(self) -> "AsyncControlClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()


class AsyncCallsStream:
    """The committed calls of a daemon: of every tile the template, then its cycles in order, none left out.

    What was published before this consumer came, or was dropped for it, is asked for again.
    """

    def __init__(self, calls: str, control: AsyncControlClient, *, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._control = calls, control
        self._context = zmq.asyncio.Context()
        self._socket = open_calls(self._context, calls, keys)
        self._following = Following()

    async def messages(self, *, timeout_s: float) -> AsyncIterator[tuple[Message, bytes]]:
        """Templates, calls and events until the run ends; called again, those of what comes next.

        Parameters
        ----------
        timeout_s : how long the daemon may be away. One that is started again within it is followed on; one that
            answers may be silent for as long as it likes.

        Raises
        ------
        UnreachableError : the daemon was away for longer, or refuses what it committed.
        MissedError : it went on to another run before all calls of this one were delivered.
        """
        following = self._following
        following.begin()
        well_s = time.monotonic()
        while not following.ended:
            if (request := following.request) is not None:
                try:
                    message, payload = await self._control.ask(request, timeout_s=min(REPEAT_S, timeout_s))
                    if isinstance(message, Refused):
                        raise refused(request, message)
                except UnreachableError as error:
                    if time.monotonic() - well_s > timeout_s:
                        raise given_up(self._endpoint, timeout_s, error) from error
                    await asyncio.sleep(POLL_S)
                    following.silent()
                    continue
                deliver = following.answered(message, payload)
                well = deliver or following.request is None
            elif await self._socket.poll(int(POLL_S * 1000)):
                message, payload = read_published(self._endpoint, await self._socket.recv_multipart())
                deliver, well = following.published(message), True
            else:
                if time.monotonic() - well_s > timeout_s / 2:
                    following.silent()
                continue
            if deliver:
                yield message, payload
            if well:
                well_s = time.monotonic()

    async def __aenter__(self) -> "AsyncCallsStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
